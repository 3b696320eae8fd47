package io.github.syncbn4j.device.cpu;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Rows;
import java.util.Arrays;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.bytedeco.javacpp.Pointer;

/**
 * A meeting of all replicas of one process. The last to come copies every replica's row to all
 * others, which is what a sum of the zero-filled buffers gives, and lets them go on.
 */
final class RowExchange {
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition over = lock.newCondition();
  private final Rows[] present;
  private int missing;
  private long meeting;
  private String failure;

  RowExchange(int replicas) {
    this.present = new Rows[replicas];
    this.missing = replicas;
  }

  void exchange(Rows[] rows) {
    lock.lock();
    try {
      requireUsable();
      for (Rows mine : rows) {
        arrive(mine);
      }
      if (missing == 0) {
        copyToAll();
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

  private void arrive(Rows mine) {
    if (present[mine.rank()] != null) {
      throw fail(
          "rank " + mine.rank() + " came twice to one exchange: it is driven by two threads");
    }
    for (Rows other : present) {
      if (other != null && other.length() != mine.length()) {
        throw fail(
            "rank %d came with rows of %d doubles, rank %d with %d: they are at different layers or steps"
                .formatted(mine.rank(), mine.length(), other.rank(), other.length()));
      }
    }
    present[mine.rank()] = mine;
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

  private void copyToAll() {
    for (Rows from : present) {
      long bytes = from.length() * Double.BYTES;
      long offset = from.rank() * bytes;
      Address source = Address.of(from.buffer().address(), offset);
      for (Rows to : present) {
        if (to != from) {
          Pointer.memcpy(Address.of(to.buffer().address(), offset), source, bytes);
        }
      }
    }
  }
}
