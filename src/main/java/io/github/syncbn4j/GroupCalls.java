package io.github.syncbn4j;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.Halves;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import io.github.syncbn4j.job.Call;
import java.util.List;

/**
 * What every call of a group's replicas, layers and tensors goes through: it is counted, refused by
 * a group that is closed or has failed, and fails the group if it ends early.
 */
final class GroupCalls {
  private final DeviceGroup devices;
  private final List<Replica> replicas;
  private final GroupHealth health;
  private final CallGate gate;

  GroupCalls(DeviceGroup devices, List<Replica> replicas, GroupHealth health, CallGate gate) {
    this.devices = devices;
    this.replicas = replicas;
    this.health = health;
    this.gate = gate;
  }

  void requireOpen() {
    gate.requireOpen();
  }

  /** Reports a failure that is known by now; see {@link ReplicaGroup#check()}. */
  void check() {
    gate.during(health::require);
  }

  /** Runs what touches the devices; what fails there fails the group. */
  void call(Runnable action) {
    callEvenIfFailed(
        () -> {
          health.require();
          action.run();
        });
  }

  /** As {@link #call}, also on a group that has failed: for reading what it left. */
  void callEvenIfFailed(Runnable action) {
    gate.enter();
    try {
      action.run();
    } catch (DeviceException | CollectiveException e) {
      throw health.failed(e);
    } finally {
      gate.leave();
    }
  }

  /**
   * Runs a part of a step. Whatever ends it early fails the group, since other replicas may have
   * gone on; so does a failure that another thread found meanwhile.
   */
  void step(List<Replica> members, Runnable action) {
    Watchdog watchdog = health.watchdog();
    gate.enter();
    try {
      health.require();
      for (int i = 0; i < members.size(); i++) {
        watchdog.enter(members.get(i).rank());
      }
      try {
        action.run();
      } catch (RuntimeException e) {
        throw health.failed(e);
      } catch (Error e) {
        health.fail(new CollectiveException("a step ended early: " + e, e));
        throw e;
      } finally {
        for (int i = 0; i < members.size(); i++) {
          watchdog.leave(members.get(i).rank());
        }
      }
      gate.requireOpen();
      health.require();
    } finally {
      gate.leave();
    }
  }

  /** Within a step: a rank comes to what all ranks have to come to; see {@link Call}. */
  void announce(int rank, long what, long size, int type) {
    if (devices.size() > 1) {
      health.watchdog().announce(rank, what, size, type);
    }
  }

  /** Within a step: exchanges the rows of these replicas. */
  void exchange(Rows[] rows) {
    if (devices.size() > 1) {
      devices.exchange(rows);
    }
  }

  /** Whether a direction of these replicas of one thread is one call; see {@link DeviceGroup}. */
  boolean joins(int ofReplicas) {
    return devices.joins(ofReplicas);
  }

  /** Within a step: both halves of its forward, and the exchange between them. */
  void forward(Halves<syncbn_stats_args, syncbn_normalize_args> halves, Rows[] rows) {
    devices.forward(halves, rows);
  }

  /** Within a step: the same of its backward. */
  void backward(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves, Rows[] rows) {
    devices.backward(halves, rows);
  }

  /**
   * Before one thread enqueues the work of several replicas.
   *
   * @throws IllegalStateException if the stream of one of them is captured into a graph
   */
  void requireNoCapture() {
    for (int i = 0; i < replicas.size(); i++) { // in every step: an iterator would be garbage
      Replica replica = replicas.get(i);
      if (replica.isCapturing()) {
        throw new IllegalStateException(
            "one thread cannot capture the steps of several replicas into a graph, where NCCL may deadlock: use a thread for each (%s)"
                .formatted(replica));
      }
    }
  }
}
