package io.github.syncbn4j;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;

/**
 * The calls of a group or layer that are under way, in any thread: closing it refuses further ones,
 * and must not pull the memory from under these.
 */
final class CallGate {
  private final String owner;
  private final AtomicInteger underWay = new AtomicInteger();
  private volatile boolean shut;

  /**
   * @param owner whose calls, as in {@code the layer}
   */
  CallGate(String owner) {
    this.owner = owner;
  }

  /**
   * Begins a call, which {@link #leave} ends.
   *
   * @throws IllegalStateException if the gate is shut
   */
  void enter() {
    underWay.incrementAndGet();
    if (shut) {
      leave();
      throw closed();
    }
  }

  void leave() {
    underWay.decrementAndGet();
  }

  /** Runs a call. */
  void during(Runnable call) {
    enter();
    try {
      call.run();
    } finally {
      leave();
    }
  }

  /** Runs a call that has a result. */
  <T> T valueDuring(Supplier<T> call) {
    enter();
    try {
      return call.get();
    } finally {
      leave();
    }
  }

  void requireOpen() {
    if (shut) {
      throw closed();
    }
  }

  private IllegalStateException closed() {
    return new IllegalStateException(owner + " is closed");
  }

  boolean isShut() {
    return shut;
  }

  void shut() {
    shut = true;
  }

  void reopen() {
    shut = false;
  }

  /** Whether no call is under way. */
  boolean isEmpty() {
    return underWay.get() == 0;
  }
}
