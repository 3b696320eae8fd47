package io.github.syncbn4j;

import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;

/**
 * Ends a step that waits for a replica which does not come: a thread of the group that looks how
 * long each replica has been in a call, and fails the group when that exceeds the timeout. Calls
 * can wait on the host: on the CPU for every exchange, with NCCL for the collectives that connect
 * the ranks.
 */
final class Watchdog implements AutoCloseable {
  private static final Duration LONGEST_PERIOD = Duration.ofMillis(250);
  private static final Duration SHORTEST_PERIOD = Duration.ofMillis(5);
  private static final int LOOKS_PER_TIMEOUT = 20;

  private final long timeoutNanos;
  private final long periodNanos;
  private final Consumer<CollectiveException> fail;

  /** When each replica entered the call that it is in; 0 where it is in none. */
  private final AtomicLongArray since;

  private final Thread thread;
  private volatile boolean closed;

  Watchdog(int replicas, Duration timeout, Consumer<CollectiveException> fail) {
    this.timeoutNanos = timeout.toNanos();
    this.periodNanos =
        Math.max(
            SHORTEST_PERIOD.toNanos(),
            Math.min(LONGEST_PERIOD.toNanos(), timeoutNanos / LOOKS_PER_TIMEOUT));
    this.fail = fail;
    this.since = new AtomicLongArray(replicas);
    this.thread = new Thread(this::watch, "syncbn-watchdog");
    thread.setDaemon(true);
    thread.start();
  }

  /** A replica begins a call. */
  void enter(int rank) {
    long now = System.nanoTime();
    since.set(rank, now == 0 ? 1 : now);
  }

  /** A replica ends its call. */
  void leave(int rank) {
    since.set(rank, 0);
  }

  private void watch() {
    while (!closed) {
      List<Integer> late = new ArrayList<>();
      List<Integer> absent = new ArrayList<>();
      long now = System.nanoTime();
      for (int rank = 0; rank < since.length(); rank++) {
        long entered = since.get(rank);
        if (entered == 0) {
          absent.add(rank);
        } else if (now - entered > timeoutNanos) {
          late.add(rank);
        }
      }
      if (!late.isEmpty()) {
        fail.accept(
            new CollectiveException(
                "rank(s) %s waited in a step for %.3f s; rank(s) %s did not come"
                    .formatted(late, timeoutNanos / (double) TimeUnit.SECONDS.toNanos(1), absent)));
        return;
      }
      LockSupport.parkNanos(periodNanos);
    }
  }

  @Override
  public void close() {
    closed = true;
    LockSupport.unpark(thread);
  }
}
