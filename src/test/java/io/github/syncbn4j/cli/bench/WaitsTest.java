package io.github.syncbn4j.cli.bench;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What is known of threads that wait. */
class WaitsTest {
  private volatile boolean ended;

  private void spin() {
    while (!ended) {
      Thread.onSpinWait();
    }
  }

  /** Threads that are named as the calling one stand for those that native code starts. */
  @Test
  void moreThreadsThanProcessors_wait() throws Exception {
    String name = Files.readString(Path.of("/proc/thread-self/comm")).strip();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 2 * Runtime.getRuntime().availableProcessors(); i++) {
      Thread thread = new Thread(this::spin, name);
      thread.start();
      threads.add(thread);
    }
    Waits waits = new Waits();
    waits.find();
    long before = waits.waited();
    Thread.sleep(100);
    long waited = waits.waited() - before;
    ended = true;
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(waited).isGreaterThan(1_000_000);
  }
}
