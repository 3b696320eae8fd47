package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static io.github.syncbn4j.Refusals.assertIllegal;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** What tensors a call takes: layouts, residuals, factors, masks and dtypes. */
@Timeout(120)
abstract class LayerInputsContract extends SixChannels {
  // ------------------------------------------------------------------------------------------------------ layouts

  /** libtorch's channels_last: the shape of channels-first over the memory of channels-last. */
  @Test
  void channelsFirstShapeOverChannelsLastMemory_isUsedWhereItIs() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = groupOf(1).trace(trace::add).build();
        Job job = new Job(group, layerOf(group).build(), 3, 0, 2 * 5 * 4)) {
      Replica replica = group.replica(0);
      SyncBatchNormalization first = layerOf(group).axis(1).build(-1, CHANNELS, -1, -1);
      DeviceTensor y = replica.allocate(DType.FLOAT32, 40, CHANNELS);
      job.layer.infer(job.xTensors, job.y);
      trace.clear();
      first.infer(replica, channelsLast(replica, job.xTensors.get(0)), channelsLast(replica, y));
      assertThat(trace).hasSize(1).first().asString().contains("normalize, x [40, 6, 1]");
      assertThat(bits(y)).isEqualTo(bits(job.y.get(0)));
    }
  }

  private static DeviceTensor channelsLast(Replica replica, DeviceTensor matrix) {
    return replica.wrapStrided(
        matrix.address(),
        DType.FLOAT32,
        new long[] {2, CHANNELS, 5, 4},
        new long[] {20 * CHANNELS, 1, 4 * CHANNELS, CHANNELS});
  }

  /** Axes that do not lie together, and rows with gaps, are packed and unpacked on the device. */
  @Test
  void tensorWithGaps_givesTheBitsOfADenseOne() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).build(), 3, 0, 8)) {
      Replica replica = group.replica(0);
      job.step();
      List<Integer> dense = bits(job.results());
      float[] spread = new float[8 * 10];
      for (int i = 0; i < job.x.get(0).length; i++) {
        spread[i / CHANNELS * 10 + i % CHANNELS] = job.x.get(0)[i];
      }
      DeviceTensor memory = replica.allocate(DType.FLOAT32, 8, 10);
      memory.copyFromHost(spread);
      job.xTensors.set(
          0,
          replica.wrapStrided(
              memory.address(), DType.FLOAT32, new long[] {8, CHANNELS}, new long[] {10, 1}));
      job.layer.setWeights(List.of(ones(), zeros(), zeros(), ones()));
      job.step();
      assertThat(bits(job.results())).isEqualTo(dense);
    }
  }

  private static double[] ones() {
    double[] values = new double[CHANNELS];
    Arrays.fill(values, 1);
    return values;
  }

  private static double[] zeros() {
    return new double[CHANNELS];
  }

  // -------------------------------------------------------------------------------------------
  // residual and ReLU

  /** Fused, or as three layers on the host: the same outputs and gradients. */
  @Tag("several")
  @ParameterizedTest
  @CsvSource({"true, true", "true, false", "false, true"})
  void residualAndRelu_areThoseOfSeparateLayers(boolean relu, boolean residual) {
    try (ReplicaGroup group = group(2);
        Job plain = new Job(group, layerOf(group).build(), 3, 0.5, 9, 5);
        Job fused = new Job(group, layerOf(group).relu(relu).build(), 3, 0.5, 9, 5)) {
      List<DeviceTensor> z = residual ? plain.dyTensors : null;
      List<DeviceTensor> dz = residual ? fused.dyTensors : null; // in place
      try (ForwardPass pass = fused.layer.forward(fused.xTensors, fused.y, z, null, true);
          ForwardPass reference = plain.layer.forward(plain.xTensors, plain.y, true)) {
        for (Replica replica : group.replicas()) {
          int rank = replica.rank();
          float[] y = plain.y.get(rank).copyToHost();
          float[] dy = plain.dy.get(rank).clone();
          for (int i = 0; i < y.length; i++) {
            y[i] += residual ? plain.dy.get(rank)[i] : 0;
            dy[i] = relu && y[i] <= 0 ? 0 : dy[i];
            y[i] = relu ? Math.max(y[i], 0) : y[i];
          }
          assertNear("y", fused.y.get(rank), y);
          DeviceTensor behind = replica.allocate(DType.FLOAT32, y.length / CHANNELS, CHANNELS);
          behind.copyFromHost(dy);
          plain.dx.set(rank, behind);
        }
        plain.layer.backward(reference, plain.dx, plain.y);
        fused.layer.backward(pass, fused.dyTensors, fused.dx, dz);
        for (int rank = 0; rank < 2; rank++) {
          assertNear("dx", fused.dx.get(rank), plain.y.get(rank).copyToHost());
          if (residual) {
            assertNear("dresidual", fused.dyTensors.get(rank), plain.dx.get(rank).copyToHost());
          }
          Replica replica = group.replica(rank);
          assertNear(
              "gamma gradient",
              fused.layer.gammaGradient(replica),
              plain.layer.gammaGradient(replica).copyToHost());
        }
      }
    }
  }

  @Test
  @Tag("several")
  void inferenceWithResidual_addsIt_forAllReplicasAndForOne() {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 9, 5)) {
      job.layer.infer(job.xTensors, job.y);
      List<float[]> expected = job.y.stream().map(DeviceTensor::copyToHost).toList();
      job.layer.infer(job.xTensors, job.y, job.dyTensors);
      for (Replica replica : group.replicas()) {
        int rank = replica.rank();
        DeviceTensor residual = job.dyTensors.get(rank);
        float[] y = expected.get(rank);
        for (int i = 0; i < y.length; i++) {
          y[i] += job.dy.get(rank)[i];
        }
        assertNear("y", job.y.get(rank), y);
        job.layer.infer(replica, job.xTensors.get(rank), job.dx.get(rank), residual);
        assertThat(job.dx.get(rank).copyToHost()).isEqualTo(job.y.get(rank).copyToHost());
      }
    }
  }

  private static void assertNear(String what, DeviceTensor got, float[] want) {
    float[] values = got.copyToHost();
    assertThat(values).as(what).hasSize(want.length);
    for (int i = 0; i < want.length; i++) {
      assertThat(values[i]).as("%s[%d]", what, i).isCloseTo(want[i], within(4e-6f));
    }
  }

  @Test
  void residuals_areRefusedWhereTheyDoNotFit() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 4);
        ForwardPass with = job.layer.forward(job.xTensors, job.y, job.dyTensors, null, true);
        ForwardPass without = job.layer.forward(job.xTensors, job.y, true)) {
      assertIllegal(() -> job.layer.backward(with, job.dyTensors, job.dx), "dresidual is missing");
      assertIllegal(
          () -> job.layer.backward(without, job.dyTensors, job.dx, job.dyTensors),
          "the forward had no residual");
      assertIllegal(
          () -> job.layer.backward(with, job.dyTensors, job.dx, job.dx),
          "the same memory as dx or x");
      assertIllegal(
          () -> job.layer.backward(with, job.dyTensors, job.dx, job.xTensors),
          "the same memory as dx or x");
      DeviceTensor small = group.replica(0).allocate(DType.FLOAT32, 3, CHANNELS);
      assertIllegal(
          () -> job.layer.forward(job.xTensors, job.y, List.of(small), null, true),
          "residual has shape [3, 6]",
          "[4, 6]");
      job.step();
    }
  }

  // ---------------------------------------------------------------------------------------------------- adjustment

  @Tag("several")
  @Test
  void adjustment_isCalledOncePerReplicaAndTrainingForward() {
    List<String> calls = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization layer =
          layerOf(group)
              .adjustment(
                  (replica, shape) -> {
                    calls.add(replica.rank() + Arrays.toString(shape));
                    DeviceTensor two = replica.allocate(DType.FLOAT32, 1);
                    two.copyFromHost(2f);
                    return new Adjustment.Factors(two, two);
                  })
              .build();
      try (Job job = new Job(group, layer, 3, 0.5, 7, 4)) {
        job.step();
        assertThat(calls).containsExactly("0[7, 6]", "1[4, 6]");
        layer.infer(job.xTensors, job.y);
        assertThat(calls).hasSize(2);
      }
    }
  }

  @Test
  void adjustmentsThatDoNotFit_areRefused_andFailNothing() {
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      DeviceTensor one = replica.allocate(DType.FLOAT32, 1);
      DeviceTensor half = replica.allocate(DType.FLOAT16, 1);
      DeviceTensor five = replica.allocate(DType.FLOAT32, 5);
      refuseAdjustment(group, null, "must return a scale and a bias");
      refuseAdjustment(group, new Adjustment.Factors(one, null), "must return a scale and a bias");
      refuseAdjustment(group, new Adjustment.Factors(half, one), "must be float32, not float16");
      refuseAdjustment(group, new Adjustment.Factors(one, five), "bias has shape [5]", "[4, 6]");
      group.check();
    }
  }

  private static void refuseAdjustment(
      ReplicaGroup group, Adjustment.Factors factors, String... texts) {
    SyncBatchNormalization layer = layerOf(group).adjustment((replica, shape) -> factors).build();
    DeviceTensor x = group.replica(0).allocate(DType.FLOAT32, 4, CHANNELS);
    assertIllegal(() -> layer.forward(group.replica(0), x, x, true), texts);
  }

  // ---------------------------------------------------------------------------------------------------------- mask

  @Tag("several")
  @Test
  void masksThatDoNotFit_areRefused() {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4)) {
      DeviceTensor floats = group.replica(0).allocate(DType.FLOAT32, 7);
      DeviceTensor wide = group.replica(0).allocate(DType.BOOL, 7, CHANNELS);
      for (DeviceTensor mask : List.of(floats, wide)) {
        assertIllegal(
            () -> job.layer.forward(job.xTensors, job.y, null, Arrays.asList(mask, null), true),
            "mask must be bool[7]");
      }
      job.step();
    }
  }

  /** Counts then differ by channel on one replica only; its peer's are all of its elements. */
  @Tag("several")
  @Test
  void maskOfOneReplica_isEnough_alsoChannelsFirst() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 2).axis(1).momentum(0).build()) {
      List<DeviceTensor> x = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        DeviceTensor tensor = replica.allocate(DType.FLOAT32, 1, 2, 2);
        tensor.copyFromHost(1f, 3f, 10f, 30f);
        x.add(tensor);
      }
      DeviceTensor mask = group.replica(0).allocate(DType.BOOL, 1, 2);
      mask.copyFromHost(ByteBuffer.wrap(new byte[] {1, 0}));
      layer.forward(x, x, null, Arrays.asList(mask, null), true).close();
      for (Replica replica : group.replicas()) {
        assertThat(layer.movingMean(replica).copyToHost()).containsExactly(2, 20);
        assertThat(layer.movingVariance(replica).copyToHost()).containsExactly(1, 100);
      }
    }
  }

  @Test
  void maskThatIsClosedBeforeBackward_isRefused_andFailsNothing() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7)) {
      DeviceTensor mask = group.replica(0).allocate(DType.BOOL, 7);
      mask.copyFromHost(ByteBuffer.wrap(new byte[] {1, 1, 1, 0, 1, 1, 1}));
      try (ForwardPass pass = job.layer.forward(job.xTensors, job.y, null, List.of(mask), true)) {
        mask.close();
        assertThatThrownBy(() -> job.layer.backward(pass, job.dyTensors, job.dx))
            .isInstanceOf(IllegalStateException.class)
            .hasMessageContaining("closed");
      }
      job.step();
    }
  }

  // ------------------------------------------------------------------------------------------------- dtypes, values

  @ParameterizedTest
  @EnumSource(names = "BOOL", mode = EnumSource.Mode.EXCLUDE)
  void everyDtype_normalizes_withItsParameters(DType dtype) {
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      SyncBatchNormalization layer = layerOf(group).dtype(dtype).build();
      assertThat(layer.gamma(replica).dtype()).isEqualTo(dtype.ofParameters());
      DeviceTensor x = replica.allocate(dtype, 2, CHANNELS);
      x.copyFromHost(new double[] {0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4});
      layer.forward(replica, x, x, true).close();
      double expected = 2 / Math.sqrt(4 + 1e-3);
      double[] y = x.copyToHostAsDoubles();
      double epsilon = dtype == DType.BFLOAT16 ? 0x1p-9 : dtype == DType.FLOAT16 ? 0x1p-12 : 1e-7;
      assertThat(y[0]).isCloseTo(-expected, within(epsilon));
      assertThat(y[11]).isCloseTo(expected, within(epsilon));
      DType other = dtype == DType.FLOAT64 ? DType.FLOAT32 : DType.FLOAT64;
      DeviceTensor wrong = replica.allocate(other, 2, CHANNELS);
      assertIllegal(
          () -> layer.forward(replica, wrong, wrong, true),
          "x must be " + dtype + ", the layer's dtype, not " + other);
    }
  }
}
