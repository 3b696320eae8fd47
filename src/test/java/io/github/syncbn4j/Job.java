package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** One layer on one group with tensors of given row counts, as a training job would hold them. */
final class Job implements AutoCloseable {
  final ReplicaGroup group;
  final SyncBatchNormalization layer;
  final int channels;
  final List<float[]> x = new ArrayList<>();
  final List<float[]> dy = new ArrayList<>();
  final List<DeviceTensor> xTensors = new ArrayList<>();
  final List<DeviceTensor> dyTensors = new ArrayList<>();
  final List<DeviceTensor> y = new ArrayList<>();
  final List<DeviceTensor> dx = new ArrayList<>();

  /** Takes over the group. */
  Job(ReplicaGroup group, SyncBatchNormalization layer, long seed, double offset, int... rows) {
    this.group = group;
    this.layer = layer;
    this.channels = Math.toIntExact(layer.channels());
    assertThat(rows).as("rows per replica").hasSize(group.size());
    Random random = new Random(seed);
    for (Replica replica : group.replicas()) {
      int n = rows[replica.rank()];
      float[] values = new float[n * channels];
      float[] gradients = new float[n * channels];
      for (int i = 0; i < values.length; i++) {
        values[i] = (float) (random.nextGaussian() + offset);
        gradients[i] = (float) random.nextGaussian();
      }
      x.add(values);
      dy.add(gradients);
      xTensors.add(upload(replica, values, n));
      dyTensors.add(upload(replica, gradients, n));
      y.add(replica.allocate(DType.FLOAT32, n, channels));
      dx.add(replica.allocate(DType.FLOAT32, n, channels));
    }
  }

  /** A layer whose momentum is 0.8 on as many replicas as there are row counts. */
  static Job of(Devices devices, long seed, double offset, int channels, int... rows) {
    ReplicaGroup group = devices.group(rows.length);
    return new Job(
        group,
        SyncBatchNormalization.builder(group, channels).momentum(0.8).build(),
        seed,
        offset,
        rows);
  }

  private DeviceTensor upload(Replica replica, float[] values, int n) {
    DeviceTensor tensor = replica.allocate(DType.FLOAT32, n, channels);
    tensor.copyFromHost(values);
    return tensor;
  }

  /**
   * Sets gamma and beta on every replica to the same values drawn from {@code seed}, and in the
   * oracle.
   */
  void drawParameters(long seed, Oracle oracle) {
    Random random = new Random(seed);
    float[] gamma = new float[channels];
    float[] beta = new float[channels];
    for (int c = 0; c < channels; c++) {
      gamma[c] = (float) (random.nextGaussian() + 1);
      beta[c] = (float) random.nextGaussian();
      oracle.gamma[c] = gamma[c];
      oracle.beta[c] = beta[c];
    }
    for (Replica replica : group.replicas()) {
      layer.gamma(replica).copyFromHost(gamma);
      layer.beta(replica).copyFromHost(beta);
    }
  }

  /** A training step by one thread. */
  void step() {
    try (ForwardPass pass = layer.forward(xTensors, y, true)) {
      layer.backward(pass, dyTensors, dx);
    }
    group.synchronize();
  }

  /** A training step by a thread a replica. */
  void stepByThreads() throws Exception {
    onThreads(
        replica -> {
          int rank = replica.rank();
          try (ForwardPass pass = layer.forward(replica, xTensors.get(rank), y.get(rank), true)) {
            layer.backward(pass, dyTensors.get(rank), dx.get(rank));
          }
          replica.synchronize();
        });
  }

  /** Runs the task for all replicas at once; throws what the lowest failing rank threw. */
  void onThreads(OnThreads.Task task) throws Exception {
    OnThreads.run(group, task);
  }

  /** Everything a step produces, in a fixed order, for comparing bits. */
  List<float[]> results() {
    List<float[]> results = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      results.add(y.get(replica.rank()).copyToHost());
      results.add(dx.get(replica.rank()).copyToHost());
      results.add(layer.gammaGradient(replica).copyToHost());
      results.add(layer.betaGradient(replica).copyToHost());
      results.addAll(state(replica));
    }
    return results;
  }

  /** For comparing results to the last bit, NaNs too. */
  static List<Integer> bits(List<float[]> tensors) {
    List<Integer> bits = new ArrayList<>();
    for (float[] tensor : tensors) {
      for (float value : tensor) {
        bits.add(Float.floatToRawIntBits(value));
      }
    }
    return bits;
  }

  static List<Integer> bits(DeviceTensor... tensors) {
    return bits(Arrays.stream(tensors).map(DeviceTensor::copyToHost).toList());
  }

  List<float[]> state(Replica replica) {
    return List.of(
        layer.movingMean(replica).copyToHost(), layer.movingVariance(replica).copyToHost());
  }

  @Override
  public void close() {
    group.close();
  }
}
