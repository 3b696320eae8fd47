package io.github.syncbn4j;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.job.Call;
import io.github.syncbn4j.job.CallLog;
import io.github.syncbn4j.job.SideChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;

/**
 * Ends what would wait for ever: a thread of the group that reports what this process's replicas
 * call, and fails the group when the ranks are not at the same call or one does not come in time,
 * and when a call itself does not end: on the CPU each exchange waits, with NCCL the collectives
 * that connect the ranks do, and every launch once a stream is full.
 */
final class Watchdog implements AutoCloseable {
  private static final Duration LONGEST_PERIOD = Duration.ofMillis(100);
  private static final Duration SHORTEST_PERIOD = Duration.ofMillis(5);
  private static final int LOOKS_PER_TIMEOUT = 20;

  /** For what the ranks' calls say to arrive, here and from other processes. */
  private static final int LOOKS_TO_HEAR = 3;

  /** Where another process does not answer. */
  private static final Duration LONGEST_HEARING = Duration.ofMillis(500);

  private final int firstRank;
  private final long timeoutNanos;
  private final long periodNanos;
  private final SideChannel channel;
  private final Consumer<CollectiveException> fail;
  private final List<CallLog> logs = new ArrayList<>();

  /**
   * When each replica entered the call that it is in, or announced what it comes to there; 0 where
   * it is in none.
   */
  private final AtomicLongArray since;

  /** Of {@link #since}, what the last look found, and when a look found it first. */
  private final long[] seen;

  private final long[] seenFirst;

  private final Thread thread;
  private volatile long looks;
  private volatile boolean closed;

  /**
   * @param firstRank of the replicas of this process, whose ranks follow each other
   */
  Watchdog(
      int firstRank,
      int replicas,
      SideChannel channel,
      Duration timeout,
      Consumer<CollectiveException> fail) {
    this.firstRank = firstRank;
    this.channel = channel;
    this.timeoutNanos = timeout.toNanos();
    this.periodNanos =
        Math.max(
            SHORTEST_PERIOD.toNanos(),
            Math.min(LONGEST_PERIOD.toNanos(), timeoutNanos / LOOKS_PER_TIMEOUT));
    this.fail = fail;
    this.since = new AtomicLongArray(replicas);
    this.seen = new long[replicas];
    this.seenFirst = new long[replicas];
    for (int i = 0; i < replicas; i++) {
      logs.add(new CallLog());
    }
    this.thread = new Thread(this::watch, "syncbn-watchdog");
    thread.setDaemon(true);
  }

  /** Once {@code fail} can be called. */
  void start() {
    thread.start();
  }

  /** A replica calls what all ranks have to call; see {@link Call}. */
  void announce(int rank, long what, long size, int type) {
    logs.get(rank - firstRank).add(what, size, type);
    if (since.get(rank - firstRank) != 0) {
      enter(rank);
    }
  }

  /** What a replica has announced last; null for nothing. */
  Call lastCall(int rank) {
    return logs.get(rank - firstRank).last();
  }

  /** A replica begins a call that may wait. */
  void enter(int rank) {
    long now = System.nanoTime();
    since.set(rank - firstRank, now == 0 ? 1 : now);
  }

  /** A replica ends its call. */
  void leave(int rank) {
    since.set(rank - firstRank, 0);
  }

  private void watch() {
    try {
      while (!closed) {
        String verdict = look();
        if (verdict != null && !closed) {
          fail.accept(new CollectiveException(verdict));
          return;
        }
        looks++; // this thread is the only one that writes
        LockSupport.parkNanos(periodNanos);
      }
    } catch (RuntimeException | Error e) {
      fail.accept(new CollectiveException("nobody watches over the ranks any more: " + e, e));
    }
  }

  /** Why the ranks cannot go on; null if they can, as far as is known. */
  private String look() {
    // Taken before the report, which so has what was announced in these calls: however late this
    // thread comes, a rank that is missing is overdue before the call that waits for it.
    long[] calls = new long[seen.length];
    for (int i = 0; i < calls.length; i++) {
      calls[i] = since.get(i);
    }
    report();
    long now = System.nanoTime();
    for (int i = 0; i < calls.length; i++) {
      if (calls[i] != seen[i]) {
        seen[i] = calls[i];
        seenFirst[i] = now;
      }
    }
    String verdict = channel.verdict();
    return verdict == null ? callThatDoesNotEnd() : verdict;
  }

  /** The one place that reads the logs. */
  private synchronized void report() {
    for (int i = 0; i < logs.size(); i++) {
      channel.report(firstRank + i, logs.get(i).next());
    }
  }

  /**
   * Lets the calls of all ranks say first why they cannot go on: that is more than what a device
   * sees of it. Waits a few looks, not for other processes.
   */
  void hear() {
    long start = System.nanoTime();
    long enough = looks + LOOKS_TO_HEAR;
    while (looks < enough
        && thread.isAlive()
        && System.nanoTime() - start < LONGEST_HEARING.toNanos()) {
      LockSupport.parkNanos(SHORTEST_PERIOD.toNanos());
    }
  }

  /**
   * Whether a wait has lasted too long: a little longer than the timeout, that the others' calls
   * tell first which rank does not come, if that is why.
   */
  boolean isOverdue(long sinceNanos) {
    return System.nanoTime() - sinceNanos > timeoutNanos + 2 * periodNanos;
  }

  private String callThatDoesNotEnd() {
    for (int i = 0; i < seen.length; i++) {
      if (seen[i] != 0 && isOverdue(seenFirst[i])) {
        return "rank %d has been in a call for more than %.3f s: its device or NCCL hangs"
            .formatted(firstRank + i, timeoutNanos / 1e9);
      }
    }
    return null;
  }

  /** Tells other processes why this one cannot go on. */
  void tell(String reason) {
    channel.fail(reason);
  }

  /** Says what was called last, and leaves the channel. */
  @Override
  public void close() {
    closed = true;
    LockSupport.unpark(thread);
    try {
      thread.join(LONGEST_HEARING.toMillis()); // an answer may be on its way to it
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    report();
    channel.close();
  }
}
