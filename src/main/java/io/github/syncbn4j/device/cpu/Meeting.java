package io.github.syncbn4j.device.cpu;

import io.github.syncbn4j.device.CollectiveException;
import java.util.Arrays;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import java.util.function.ToIntFunction;

/**
 * A meeting of all replicas of one process, again and again. The last to come does the work for all
 * and lets them go on.
 *
 * @param <T> what a replica brings
 */
final class Meeting<T> {
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition over = lock.newCondition();
  private final T[] present;
  private final ToIntFunction<T> rank;
  private final BiFunction<T, T, String> conflict;
  private final Consumer<T[]> work;
  private int missing;
  private long meeting;
  private String failure;

  /**
   * @param present a place for each replica, all null
   * @param conflict why two parts are not of one call; null if they are
   * @param work on all parts, in rank order
   */
  Meeting(
      T[] present, ToIntFunction<T> rank, BiFunction<T, T, String> conflict, Consumer<T[]> work) {
    this.present = present;
    this.rank = rank;
    this.conflict = conflict;
    this.work = work;
    this.missing = present.length;
  }

  /** Brings the parts of some replicas, and waits for the others. */
  void meet(T[] parts) {
    lock.lock();
    try {
      requireUsable();
      for (T mine : parts) {
        arrive(mine);
      }
      if (missing == 0) {
        work.accept(present);
        Arrays.fill(present, null);
        missing = present.length;
        meeting++;
        over.signalAll();
      } else {
        awaitTheOthers();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Every replica that waits, or comes later, gets an exception. */
  void abort() {
    lock.lock();
    try {
      if (failure == null) {
        fail("the exchange was aborted");
      }
    } finally {
      lock.unlock();
    }
  }

  private void arrive(T mine) {
    int place = rank.applyAsInt(mine);
    if (present[place] != null) {
      throw fail("rank " + place + " came twice to one exchange: it is driven by two threads");
    }
    for (T other : present) {
      String reason = other == null ? null : conflict.apply(mine, other);
      if (reason != null) {
        throw fail(reason);
      }
    }
    present[place] = mine;
    missing--;
  }

  private void awaitTheOthers() {
    long mine = meeting;
    while (meeting == mine && failure == null) {
      over.awaitUninterruptibly();
    }
    if (meeting == mine) {
      requireUsable();
    }
  }

  private void requireUsable() {
    if (failure != null) {
      throw new CollectiveException(failure);
    }
  }

  private CollectiveException fail(String reason) {
    failure = reason;
    over.signalAll();
    return new CollectiveException(reason);
  }
}
