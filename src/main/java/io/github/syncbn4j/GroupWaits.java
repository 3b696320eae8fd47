package io.github.syncbn4j;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.locks.LockSupport;

/** How the host waits for a group's devices, so that it never does for ever. */
final class GroupWaits {
  /** How long after an abort devices and other threads' calls may take to end. */
  private static final Duration DRAIN_TIMEOUT = Duration.ofSeconds(10);

  private static final long SPIN_NANOS = 50_000;

  /** How often one who waits looks at the other replicas. */
  private static final int PARKS_PER_LOOK = 100;

  private final List<Replica> replicas;
  private final GroupHealth health;
  private final Duration timeout;

  GroupWaits(List<Replica> replicas, GroupHealth health, Duration timeout) {
    this.replicas = replicas;
    this.health = health;
    this.timeout = timeout;
  }

  /**
   * Waits until a replica's device runs nothing.
   *
   * @throws CollectiveException past the timeout
   * @throws DeviceException if one of the group's devices has died
   * @throws IllegalStateException while the replica's stream is captured into a graph
   */
  void awaitIdle(Replica replica) {
    if (replica.device().isCapturing()) {
      throw new IllegalStateException(
          "nobody can wait for %s while its stream is captured into a graph".formatted(replica));
    }
    Watchdog watchdog = health.watchdog();
    long start = System.nanoTime();
    int parked = 0;
    while (!replica.device().isIdle()) {
      if (watchdog.isOverdue(start)) {
        requireAlive();
        throw new CollectiveException(
            "%s did not finish what was enqueued within %.3f s (its last call: %s): a device hangs, or a rank that cannot be asked does not come"
                .formatted(replica, timeout.toMillis() / 1e3, watchdog.lastCall(replica.rank())));
      }
      if (System.nanoTime() - start < SPIN_NANOS) {
        Thread.onSpinWait();
      } else {
        LockSupport.parkNanos(Waiting.PARK_NANOS);
        if (++parked % PARKS_PER_LOOK == 0) {
          requireAlive();
        }
      }
    }
  }

  /** One whose peer's device is dead waits for nothing. */
  private void requireAlive() {
    for (Replica replica : replicas) {
      replica.device().requireAlive();
    }
  }

  /**
   * Waits until a replica's device runs nothing, so that giving back memory, which waits without a
   * limit, does not hang. Past the timeout the group is failed and aborted.
   *
   * @throws IllegalStateException if the device is stuck even then
   */
  void settle(Replica replica) {
    try {
      awaitIdle(replica);
      return;
    } catch (DeviceException | CollectiveException e) {
      health.fail(e);
    }
    if (!Waiting.until(replica::isOver, DRAIN_TIMEOUT)) {
      throw new IllegalStateException(
          "%s is stuck %d s after the group was aborted; its memory is not released"
              .formatted(replica, DRAIN_TIMEOUT.toSeconds()),
          health.failure());
    }
  }

  /**
   * Waits until nothing runs any more, on the devices and in other threads: releasing memory waits
   * for the device, and one that never ends would make it hang.
   *
   * @throws IllegalStateException if something is stuck
   */
  void awaitEndOfAborted(CallGate calls) {
    if (!Waiting.until(
        () -> calls.isEmpty() && replicas.stream().allMatch(Replica::isOver), DRAIN_TIMEOUT)) {
      throw new IllegalStateException(
          "a step is still under way %d s after the group was aborted; nothing is released"
              .formatted(DRAIN_TIMEOUT.toSeconds()),
          health.failure());
    }
  }
}
