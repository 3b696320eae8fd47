package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.state.StoredTensor;
import java.nio.ByteBuffer;
import java.util.List;
import org.junit.jupiter.api.Test;

/** {@code syncbn replay} on the CPU. */
class ReplayTest extends ReplayContract {
  @Override
  String device() {
    return "cpu";
  }

  @Override
  String collective() {
    return "copy of rows";
  }

  @Test
  void stateThatDiffersBetweenReplicas_isFound() {
    StoredTensor a = state(1);
    StoredTensor b = state(2);
    assertThatCode(() -> Replay.requireSameBits("mean", List.of(a, state(1), state(1))))
        .doesNotThrowAnyException();
    assertThatThrownBy(() -> Replay.requireSameBits("mean", List.of(a, state(1), b)))
        .isInstanceOf(Replay.DivergedException.class)
        .hasMessage("mean of ranks 0 and 2 differ");
  }

  private static StoredTensor state(float value) {
    return new StoredTensor("F32", new long[] {1}, ByteBuffer.allocate(4).putFloat(value).flip());
  }
}
