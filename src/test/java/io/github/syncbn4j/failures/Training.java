package io.github.syncbn4j.failures;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A network of two layers on the replicas of one process. Two more are there for a rank that goes
 * wrong to come to. A step has no host wait in it but at its end.
 */
final class Training implements AutoCloseable {
  private static final int ROWS = 6;

  final ReplicaGroup group;

  /** Of the network. */
  final Layer first;

  final Layer second;

  /** Has other channels than the network's. */
  final Layer wide;

  /** Has another type than the network's. */
  final Layer exact;

  /** A layer with the tensors of each replica. */
  static final class Layer {
    final SyncBatchNormalization layer;
    final List<DeviceTensor> x = new ArrayList<>();
    final List<DeviceTensor> y = new ArrayList<>();

    Layer(ReplicaGroup group, int channels, DType dtype) {
      layer = SyncBatchNormalization.builder(group, channels).dtype(dtype).relu(true).build();
      for (Replica replica : group.replicas()) {
        x.add(replica.allocate(dtype, ROWS, channels));
        y.add(replica.allocate(dtype, ROWS, channels));
        float[] values = new float[ROWS * channels];
        for (int i = 0; i < values.length; i++) {
          values[i] = (float) Math.sin(1 + i + 10.0 * replica.rank());
        }
        x.get(x.size() - 1).copyFromHost(values);
      }
    }

    ForwardPass forward(Replica replica) {
      int i = index(replica);
      return layer.forward(replica, x.get(i), y.get(i), true);
    }

    /** A forward that the host waits for. */
    void comeTo(Replica replica) {
      forward(replica);
      replica.synchronize();
    }

    /** A forward with memory that it has not needed before. */
    ForwardPass forwardWithResidual(Replica replica) {
      int i = index(replica);
      return layer.forward(replica, x.get(i), y.get(i), x.get(i), null, true);
    }

    private static int index(Replica replica) {
      return replica.group().replicas().indexOf(replica);
    }
  }

  /** Takes over the group. */
  Training(ReplicaGroup group) {
    this.group = group;
    try {
      first = new Layer(group, 5, DType.FLOAT32);
      second = new Layer(group, 5, DType.FLOAT32);
      wide = new Layer(group, 7, DType.FLOAT32);
      exact = new Layer(group, 5, DType.FLOAT64);
    } catch (RuntimeException e) {
      group.close();
      throw e;
    }
  }

  /** A step of one replica by its own thread. */
  void step(Replica replica) {
    enqueue(replica);
    replica.synchronize();
  }

  /** The same without waiting for it. */
  void enqueue(Replica replica) {
    try (ForwardPass a = first.forward(replica);
        ForwardPass b = second.forward(replica)) {
      int i = Layer.index(replica);
      second.layer.backward(b, second.y.get(i), second.y.get(i));
      first.layer.backward(a, first.y.get(i), first.y.get(i));
    }
  }

  /** A step of all replicas by one thread. */
  void step() {
    try (ForwardPass a = first.layer.forward(first.x, first.y, true);
        ForwardPass b = second.layer.forward(second.x, second.y, true)) {
      second.layer.backward(b, second.y, second.y);
      first.layer.backward(a, first.y, first.y);
    }
    group.synchronize();
  }

  /** The statistics of a replica, which a step changes. */
  String state(Replica replica) {
    StringBuilder text = new StringBuilder();
    for (Layer each : List.of(first, second, wide)) {
      text.append(Arrays.hashCode(each.layer.movingMean(replica).copyToHost()))
          .append(' ')
          .append(Arrays.hashCode(each.layer.movingVariance(replica).copyToHost()))
          .append(' ');
    }
    return text.toString();
  }

  @Override
  public void close() {
    group.close();
  }
}
