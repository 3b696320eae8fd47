package io.github.syncbn4j;

import java.util.List;
import java.util.Objects;

/**
 * What a layer's forward, recomputation and backward do, once for all replicas and once for one: a
 * pass is taken from its pool, or found in its handle, bound to the tensors, and takes its step. A
 * forward that ends early gives its pass back.
 */
final class LayerCalls {
  private final SyncBatchNormalization layer;
  private final List<LayerReplica> members;
  private final CallGate gate;
  private final PassPool allRanks;

  LayerCalls(SyncBatchNormalization layer, List<LayerReplica> members, CallGate gate) {
    this.layer = layer;
    this.members = members;
    this.gate = gate;
    this.allRanks = new PassPool(layer, members);
  }

  // ------------------------------------------------------------------------------------------------ all replicas

  ForwardPass forward(
      List<DeviceTensor> x,
      List<DeviceTensor> y,
      List<DeviceTensor> residual,
      List<DeviceTensor> mask,
      boolean training) {
    requireOnePerReplica(x, "x");
    requireOnePerReplica(y, "y");
    requireOnePerReplicaOrNone(residual, "residual");
    requireOnePerReplicaOrNone(mask, "mask");
    gate.enter();
    try {
      boolean trainable = layer.isTrainable();
      PooledPass pass = allRanks.take();
      boolean done = false;
      try {
        for (int i = 0; i < members.size(); i++) {
          pass.part(i)
              .bindForward(x.get(i), y.get(i), at(residual, i), at(mask, i), training, trainable);
        }
        pass.makeOneKind();
        pass.stepForward();
        done = true;
        return new ForwardPass(allRanks, pass);
      } finally {
        giveBackUnless(done, allRanks, pass);
      }
    } finally {
      gate.leave();
    }
  }

  void recompute(
      ForwardPass pass, List<DeviceTensor> x, List<DeviceTensor> y, List<DeviceTensor> residual) {
    requireOnePerReplica(x, "x");
    requireOnePerReplica(y, "y");
    requireOnePerReplicaOrNone(residual, "residual");
    gate.enter();
    try {
      PooledPass pooled = pass.require(layer, members.size());
      for (int i = 0; i < members.size(); i++) {
        pooled.part(i).tensors().checkRecompute(x.get(i), y.get(i), at(residual, i));
      }
      for (int i = 0; i < members.size(); i++) {
        pooled.part(i).tensors().bindValues(x.get(i), y.get(i), at(residual, i));
      }
      pooled.stepRecompute();
    } finally {
      gate.leave();
    }
  }

  void backward(
      ForwardPass pass,
      List<DeviceTensor> dy,
      List<DeviceTensor> dx,
      List<DeviceTensor> dresidual) {
    requireOnePerReplica(dy, "dy");
    requireOnePerReplica(dx, "dx");
    requireOnePerReplicaOrNone(dresidual, "dresidual");
    gate.enter();
    try {
      PooledPass pooled = pass.require(layer, members.size());
      for (int i = 0; i < members.size(); i++) {
        pooled.part(i).tensors().bindBackward(dy.get(i), dx.get(i), at(dresidual, i));
      }
      pooled.stepBackward();
    } finally {
      gate.leave();
    }
  }

  // ------------------------------------------------------------------------------------------------- one replica

  ForwardPass forward(
      LayerReplica member,
      DeviceTensor x,
      DeviceTensor y,
      DeviceTensor residual,
      DeviceTensor mask,
      boolean training) {
    gate.enter();
    try {
      PassPool pool = member.passes(layer);
      PooledPass pass = pool.take();
      boolean done = false;
      try {
        pass.part(0).bindForward(x, y, residual, mask, training, layer.isTrainable());
        pass.stepForward();
        done = true;
        return new ForwardPass(pool, pass);
      } finally {
        giveBackUnless(done, pool, pass);
      }
    } finally {
      gate.leave();
    }
  }

  void recompute(ForwardPass pass, DeviceTensor x, DeviceTensor y, DeviceTensor residual) {
    gate.enter();
    try {
      PooledPass pooled = pass.require(layer, 1);
      pooled.part(0).tensors().checkRecompute(x, y, residual);
      pooled.part(0).tensors().bindValues(x, y, residual);
      pooled.stepRecompute();
    } finally {
      gate.leave();
    }
  }

  void backward(ForwardPass pass, DeviceTensor dy, DeviceTensor dx, DeviceTensor dresidual) {
    gate.enter();
    try {
      PooledPass pooled = pass.require(layer, 1);
      pooled.part(0).tensors().bindBackward(dy, dx, dresidual);
      pooled.stepBackward();
    } finally {
      gate.leave();
    }
  }

  /** Releases the passes over all replicas. */
  void close() {
    allRanks.close();
  }

  private static void giveBackUnless(boolean done, PassPool pool, PooledPass pass) {
    if (!done) {
      pool.giveBack(pass);
    }
  }

  private void requireOnePerReplica(List<DeviceTensor> tensors, String name) {
    Objects.requireNonNull(tensors, name);
    if (tensors.size() != members.size()) {
      throw new IllegalArgumentException(
          "%s has %d tensors, the group has %d replicas"
              .formatted(name, tensors.size(), members.size()));
    }
  }

  private void requireOnePerReplicaOrNone(List<DeviceTensor> tensors, String name) {
    if (tensors != null) {
      requireOnePerReplica(tensors, name);
    }
  }

  private static DeviceTensor at(List<DeviceTensor> tensors, int i) {
    return tensors == null ? null : tensors.get(i);
  }
}
