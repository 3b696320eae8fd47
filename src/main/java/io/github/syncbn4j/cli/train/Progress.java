package io.github.syncbn4j.cli.train;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CancellationException;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/**
 * A bar on stderr while training, and none where stderr is no terminal; also what Ctrl-C stops the
 * training by.
 */
final class Progress implements AutoCloseable {
  private static final int REFRESH_MILLIS = 200;

  private final ProgressBar bar;
  private volatile boolean stopped;

  private Progress(ProgressBar bar) {
    this.bar = bar;
  }

  /**
   * @param steps of all runs together
   */
  static Progress of(long steps) {
    if (!isTerminal()) {
      return new Progress(null);
    }
    return new Progress(
        new ProgressBarBuilder()
            .setTaskName("training")
            .setInitialMax(steps)
            .setUnit(" steps", 1)
            .setStyle(ProgressBarStyle.ASCII)
            .setUpdateIntervalMillis(REFRESH_MILLIS)
            .clearDisplayOnFinish()
            .build());
  }

  /** Shows nothing. */
  static Progress hidden() {
    return new Progress(null);
  }

  private static boolean isTerminal() {
    try {
      String stderr = Files.readSymbolicLink(Path.of("/proc/self/fd/2")).toString();
      return stderr.startsWith("/dev/pts/") || stderr.startsWith("/dev/tty");
    } catch (IOException | UnsupportedOperationException e) {
      return false;
    }
  }

  /** What is being trained now. */
  void phase(String name) {
    if (bar != null) {
      bar.setExtraMessage(" " + name);
    }
  }

  void step() {
    if (bar != null) {
      bar.step();
    }
  }

  /** Has every replica's next {@link #check} end the training. */
  void stop() {
    stopped = true;
  }

  /**
   * @throws CancellationException after {@link #stop}
   */
  void check() {
    if (stopped) {
      throw new CancellationException("stopped");
    }
  }

  @Override
  public void close() {
    if (bar != null) {
      bar.close();
    }
  }
}
