package io.github.syncbn4j.cli.output;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CancellationException;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** A bar on stderr, and none where stderr is no terminal; also what Ctrl-C stops a job by. */
public final class Progress implements AutoCloseable {
  private static final int REFRESH_MILLIS = 200;

  private final ProgressBar bar;
  private volatile boolean stopped;

  private Progress(ProgressBar bar) {
    this.bar = bar;
  }

  /**
   * @param task as in {@code training}
   * @param unit of the steps, in plural
   * @param steps of the whole task
   */
  public static Progress of(String task, String unit, long steps) {
    if (!isTerminal()) {
      return new Progress(null);
    }
    return new Progress(
        new ProgressBarBuilder()
            .setTaskName(task)
            .setInitialMax(steps)
            .setUnit(" " + unit, 1)
            .setStyle(ProgressBarStyle.ASCII)
            .setUpdateIntervalMillis(REFRESH_MILLIS)
            .clearDisplayOnFinish()
            .build());
  }

  /** Shows nothing. */
  public static Progress hidden() {
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

  /** What is being done now. */
  public void phase(String name) {
    if (bar != null) {
      bar.setExtraMessage(" " + name);
    }
  }

  public void step() {
    if (bar != null) {
      bar.step();
    }
  }

  /** Has every thread's next {@link #check} end the task. */
  public void stop() {
    stopped = true;
  }

  /**
   * @throws CancellationException after {@link #stop}
   */
  public void check() {
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
