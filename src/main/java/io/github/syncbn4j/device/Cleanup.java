package io.github.syncbn4j.device;

import java.util.List;

/** Releasing several things, each of them even where another fails to. */
public final class Cleanup {
  private Cleanup() {}

  /**
   * Runs all actions, in order.
   *
   * @throws RuntimeException what the first failing action threw; what others threw is suppressed
   *     in it
   */
  public static void runAll(List<Runnable> actions) {
    RuntimeException first = null;
    for (Runnable action : actions) {
      try {
        action.run();
      } catch (RuntimeException e) {
        if (first == null) {
          first = e;
        } else {
          first.addSuppressed(e);
        }
      }
    }
    if (first != null) {
      throw first;
    }
  }

  /** Releases what a failure leaves behind; what fails on the way is suppressed in it. */
  public static void after(Throwable failure, Runnable release) {
    try {
      release.run();
    } catch (RuntimeException e) {
      failure.addSuppressed(e);
    }
  }
}
