package io.github.syncbn4j.pytorch;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

/** Tests whose libtorch objects end with the test, on one thread and from a fixed seed. */
abstract class ScopedTest {
  private final long seed;
  private PointerScope scope;

  ScopedTest(long seed) {
    this.seed = seed;
  }

  @BeforeEach
  void begin() {
    scope = new PointerScope();
    torch.set_num_threads(1);
    torch.manual_seed(seed);
  }

  @AfterEach
  void end() {
    scope.close();
  }
}
