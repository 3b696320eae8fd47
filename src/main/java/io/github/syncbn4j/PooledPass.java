package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.Halves;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

/**
 * The memory and the work of a pass, which serve one {@link ForwardPass} after another: the order
 * in which a step's kernels and its exchange are enqueued is here alone. All its parts are of one
 * kind: training or not, with counts per channel or without.
 */
final class PooledPass {
  private final SyncBatchNormalization layer;
  private final List<Replica> replicas;
  private final PassPart[] parts;
  private final Rows[] rows;

  // Null where the two halves of a direction are calls of their own.
  private final Halves<syncbn_stats_args, syncbn_normalize_args> forwardHalves;
  private final Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> backwardHalves;

  // Made once, so that a step makes nothing.
  private final Runnable forward = this::enqueueForward;
  private final Runnable recompute = this::enqueueRecompute;
  private final Runnable backward = this::enqueueBackward;

  PooledPass(SyncBatchNormalization layer, List<LayerReplica> members) {
    this.layer = layer;
    this.replicas = members.stream().map(LayerReplica::replica).toList();
    this.parts = new PassPart[members.size()];
    this.rows = new Rows[members.size()];
    try {
      for (int i = 0; i < parts.length; i++) {
        parts[i] = new PassPart(members.get(i));
        rows[i] = parts[i].rows();
      }
    } catch (RuntimeException | Error e) {
      Cleanup.after(e, this::release);
      throw e;
    }
    boolean joined = layer.group().calls().joins(parts.length);
    List<PassPart> all = List.of(parts);
    forwardHalves =
        joined
            ? new Halves<>(
                all.stream().map(PassPart::statsArgs).toList(),
                all.stream().map(PassPart::normalizeArgs).toList())
            : null;
    backwardHalves =
        joined
            ? new Halves<>(
                all.stream().map(PassPart::reduceArgs).toList(),
                all.stream().map(PassPart::inputArgs).toList())
            : null;
  }

  boolean training() {
    return parts[0].training();
  }

  /** Takes the step of a forward that the parts are bound for. */
  void stepForward() {
    step(forward);
  }

  /** Takes the step of a recomputation that the parts are bound for. */
  void stepRecompute() {
    step(recompute);
  }

  /** Takes the step of a backward that the parts are bound for. */
  void stepBackward() {
    step(backward);
  }

  private void step(Runnable enqueue) {
    ReplicaGroup group = layer.group();
    if (parts.length == 1) {
      parts[0].prepareCapture();
    } else {
      group.calls().requireNoCapture();
    }
    if (parts.length == group.size()) {
      // Nobody waits for this thread: if there is no memory, nothing has begun, and nothing fails.
      for (PassPart part : parts) {
        part.reserve();
      }
    }
    group.calls().step(replicas, enqueue);
  }

  private void enqueueForward() {
    for (PassPart part : parts) {
      part.startForward();
    }
    if (training() && forwardHalves != null) {
      for (PassPart part : parts) {
        part.bindNormalize();
        part.announce(false);
      }
      layer.group().calls().forward(forwardHalves, rows);
      for (PassPart part : parts) {
        part.endForward();
      }
      return;
    }
    if (training()) {
      for (PassPart part : parts) {
        part.stats();
        part.announce(false);
      }
      layer.group().calls().exchange(rows);
    }
    int normalized = 0;
    try {
      for (; normalized < parts.length; normalized++) {
        parts[normalized].normalize();
      }
    } catch (DeviceException e) {
      if (!training() || layer.group().size() == 1) {
        throw e;
      }
      Replica replica = replicas.get(normalized);
      throw new CollectiveException(
          "%s did not take a step that other replicas may have taken, so that their states differ: %s"
              .formatted(replica, e.getMessage()),
          e);
    }
  }

  private void enqueueRecompute() {
    for (PassPart part : parts) {
      part.startRecompute();
      part.normalize();
    }
  }

  private void enqueueBackward() {
    for (PassPart part : parts) {
      part.startBackward();
    }
    if (training() && backwardHalves != null) {
      for (PassPart part : parts) {
        part.announce(true);
      }
      layer.group().calls().backward(backwardHalves, rows);
      for (PassPart part : parts) {
        part.endBackward();
      }
      return;
    }
    for (PassPart part : parts) {
      part.backwardReduce();
    }
    if (training()) {
      for (PassPart part : parts) {
        part.announce(true);
      }
      layer.group().calls().exchange(rows);
    }
    for (PassPart part : parts) {
      part.backwardInput();
    }
  }

  PassPart part(int i) {
    return parts[i];
  }

  int parts() {
    return parts.length;
  }

  SyncBatchNormalization layer() {
    return layer;
  }

  /** Where one replica's row has a count for each channel, all have. */
  void makeOneKind() {
    for (PassPart part : parts) {
      if (part.tensors().countsChannels()) {
        for (PassPart other : parts) {
          other.tensors().countChannels();
        }
        return;
      }
    }
  }

  void release() {
    Cleanup.runAll(
        Arrays.stream(parts).filter(Objects::nonNull).<Runnable>map(p -> p::release).toList());
  }
}
