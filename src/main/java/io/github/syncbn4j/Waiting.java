package io.github.syncbn4j;

import java.time.Duration;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/** Waits of a thread that nobody wakes up: it looks again and again, for so long at the most. */
final class Waiting {
  /** Between two looks. */
  static final long PARK_NANOS = 50_000;

  private Waiting() {}

  /** Whether the condition came true in time. */
  static boolean until(BooleanSupplier condition, Duration atMost) {
    long deadline = System.nanoTime() + atMost.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadline) {
        return false;
      }
      LockSupport.parkNanos(PARK_NANOS);
    }
    return true;
  }
}
