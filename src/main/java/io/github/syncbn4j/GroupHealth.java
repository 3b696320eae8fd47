package io.github.syncbn4j;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.natives.syncbn_control;
import io.github.syncbn4j.job.SideChannel;
import io.github.syncbn4j.job.Signature;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;

/**
 * Whether a group can go on: what it failed of, who has been told, and what a failure ends. The
 * first failure stays the group's; whatever follows from it only says more about it.
 */
final class GroupHealth implements AutoCloseable {
  /** How long after an abort a device that does not end what was enqueued is called stuck. */
  private static final Duration STUCK_AFTER = Duration.ofMillis(300);

  private final DeviceGroup devices;
  private final List<Replica> replicas;
  private final Set<SyncBatchNormalization> layers;
  private final Watchdog watchdog;
  private final AtomicReference<RuntimeException> failure = new AtomicReference<>();
  private volatile boolean seen;

  /**
   * @param layers of the group, as they come and go
   */
  GroupHealth(
      DeviceGroup devices,
      List<Replica> replicas,
      Set<SyncBatchNormalization> layers,
      SideChannel channel,
      Duration timeout) {
    this.devices = devices;
    this.replicas = replicas;
    this.layers = layers;
    this.watchdog =
        new Watchdog(devices.firstRank(), replicas.size(), channel, timeout, this::conclude);
  }

  /** Which finds the failures that no call meets. */
  Watchdog watchdog() {
    return watchdog;
  }

  /** What the group failed of; null if it did not. */
  RuntimeException failure() {
    return failure.get();
  }

  /**
   * Throws a failure that is known by now: itself the first time, one that it caused from then on.
   * Within a counted call, so that closing does not take the control words away.
   */
  void require() {
    detectMismatch();
    requireSeen();
    RuntimeException known = failure.get();
    if (known != null) {
      throw hasFailed(known);
    }
  }

  /** Throws the failure, if no call has reported it yet. */
  void requireSeen() {
    RuntimeException known = failure.get();
    if (known != null && !seen) {
      seen = true;
      throw known;
    }
  }

  private static CollectiveException hasFailed(RuntimeException known) {
    return new CollectiveException("the group has failed: " + known.getMessage(), known);
  }

  /** Fails the group if a kernel has seen that the replicas are at different steps. */
  void detectMismatch() {
    for (int i = 0; i < replicas.size(); i++) { // at every call: an iterator would be garbage
      Replica replica = replicas.get(i);
      syncbn_control control = replica.device().control().host();
      if (control.mismatch() != 0) {
        fail(mismatch(replica, control));
      }
    }
  }

  private static CollectiveException mismatch(Replica replica, syncbn_control control) {
    return new CollectiveException(
        "the replicas are at different steps: rank %d is at %s, rank %d at %s"
            .formatted(
                replica.rank(),
                Signature.describe(control.expected()),
                control.mismatch() - 1,
                Signature.describe(control.found())));
  }

  /**
   * Records what went wrong in the caller's step and aborts what is under way. Returns what to
   * throw: {@code e}, or what the group had already failed of, which {@code e} then only follows
   * from.
   */
  RuntimeException failed(RuntimeException e) {
    fail(e);
    RuntimeException known = failure.get();
    if (known == e || e.getCause() == known || known.getCause() == e) {
      seen = true;
      return known.getCause() == e ? known : e;
    }
    RuntimeException thrown = seen ? hasFailed(known) : known;
    seen = true;
    thrown.addSuppressed(e);
    return thrown;
  }

  /** Records what went wrong, once the ranks' calls had the time to say why, and aborts. */
  void fail(RuntimeException e) {
    if (e instanceof CollectiveException && failure.get() == null) {
      watchdog.hear();
    }
    conclude(e);
  }

  /** Records what went wrong where there is nothing left to abort. */
  void failAtTheEnd(RuntimeException e) {
    failure.compareAndSet(null, e);
  }

  private void conclude(RuntimeException reason) {
    if (failure.compareAndSet(null, reason)) {
      for (Replica replica : replicas) {
        replica.device().control().host().aborted(1);
      }
      watchdog.tell(reason.getMessage());
      try {
        devices.abort();
      } catch (RuntimeException abortFailure) {
        reason.addSuppressed(abortFailure);
      }
      noteWhatIsLeft(reason);
    }
  }

  /**
   * What shows only after the abort: which devices hang, and which replicas of this process have
   * taken a step that was enqueued where others have not.
   */
  private void noteWhatIsLeft(RuntimeException reason) {
    Waiting.until(() -> replicas.stream().allMatch(Replica::isOver), STUCK_AFTER);
    Map<Boolean, List<Replica>> over =
        replicas.stream().collect(Collectors.partitioningBy(Replica::isOver));
    if (!over.get(false).isEmpty()) {
      reason.addSuppressed(
          new CollectiveException(over.get(false) + " still at work after the abort"));
    }
    for (SyncBatchNormalization layer : layers) {
      try {
        String differences = layer.differences(over.get(true));
        if (differences != null) {
          reason.addSuppressed(new CollectiveException("states differ: " + differences));
        }
      } catch (DeviceException | IllegalStateException e) {
        // A device that cannot be read any more, or a layer that is closed.
      }
    }
  }

  /** Ends the watch. */
  @Override
  public void close() {
    watchdog.close();
  }
}
