package io.github.syncbn4j;

import static io.github.syncbn4j.LayerContract.assertIllegal;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.github.syncbn4j.nn.Constraints;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizers;
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

/** What the layer's options and its ways of being called promise, one by one. */
@Timeout(120)
abstract class LayerOptionsContract implements Devices {
  private static final int CHANNELS = 6;

  private static SyncBatchNormalization.Builder layerOf(ReplicaGroup group) {
    return SyncBatchNormalization.builder(group, CHANNELS).momentum(0.8);
  }

  private static List<Integer> bits(DeviceTensor... tensors) {
    return LayerContract.bits(Arrays.stream(tensors).map(DeviceTensor::copyToHost).toList());
  }

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
      List<Integer> dense = LayerContract.bits(job.results());
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
      assertThat(LayerContract.bits(job.results())).isEqualTo(dense);
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

  // -----------------------------------------------------------------------------------------------
  // recomputation

  @Tag("several")
  @Test
  void recompute_givesTheSameBits_exchangesNothing_andChangesNoState() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = groupOf(2).trace(trace::add).build();
        Job job = new Job(group, layerOf(group).relu(true).build(), 3, 0.5, 7, 4);
        ForwardPass pass = job.layer.forward(job.xTensors, job.y, job.dyTensors, null, true)) {
      List<Integer> y = bits(job.y.get(0), job.y.get(1));
      List<Integer> state = LayerContract.bits(job.state(group.replica(0)));
      job.y.forEach(tensor -> tensor.copyFromHost(new float[(int) tensor.elements()]));
      trace.clear();
      job.layer.recompute(pass, job.xTensors, job.y, job.dyTensors);
      assertThat(trace).hasSize(2).allMatch(line -> line.contains("kernel normalize"));
      assertThat(bits(job.y.get(0), job.y.get(1))).isEqualTo(y);
      assertThat(LayerContract.bits(job.state(group.replica(0)))).isEqualTo(state);
      assertIllegal(
          () -> job.layer.recompute(pass, job.xTensors, job.y, null), "residual is missing");
      DeviceTensor small = group.replica(0).allocate(DType.FLOAT32, 3, CHANNELS);
      assertIllegal(
          () ->
              job.layer.recompute(pass, List.of(small, job.xTensors.get(1)), job.y, job.dyTensors),
          "shape [7, 6]",
          "[3, 6]");
      job.layer.backward(pass, job.dyTensors, job.dx, job.y);
      assertThat(job.dx.get(0).copyToHost()).isNotEqualTo(new float[7 * CHANNELS]);
    }
  }

  /** What a refused call was given must not become the open pass's. */
  @Test
  void refusedRecompute_leavesThePassAsItWas() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).relu(true).build(), 3, 0.5, 7);
        Job other = new Job(group, layerOf(group).build(), 4, 9, 7);
        ForwardPass pass = job.layer.forward(job.xTensors, job.y, job.dyTensors, null, true)) {
      job.layer.backward(pass, job.dyTensors, job.dx, job.y);
      List<Integer> dx = bits(job.dx.get(0));
      DeviceTensor small = group.replica(0).allocate(DType.FLOAT32, 3, CHANNELS);
      assertIllegal(
          () -> job.layer.recompute(pass, other.xTensors, List.of(small), job.dyTensors), "y has");
      assertIllegal(
          () -> job.layer.recompute(pass, other.xTensors, job.y, List.of(small)), "residual has");
      job.layer.backward(pass, job.dyTensors, job.dx, job.y);
      assertThat(bits(job.dx.get(0))).isEqualTo(dx);
    }
  }

  // ------------------------------------------------------------------------------------------------------- frozen

  /** One call is of one kind on all replicas, whatever happens meanwhile. */
  @Tag("several")
  @Test
  void freezingInTheMiddleOfACall_isForTheNextCall() {
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization[] layer = new SyncBatchNormalization[1];
      layer[0] =
          layerOf(group)
              .adjustment(
                  (replica, shape) -> {
                    layer[0].setTrainable(false);
                    DeviceTensor one = replica.allocate(DType.FLOAT32, 1);
                    one.copyFromHost(1f);
                    return new Adjustment.Factors(one, one);
                  })
              .build();
      try (Job job = new Job(group, layer[0], 3, 0.5, 7, 4)) {
        job.step();
        assertThat(job.layer.countedSteps()).isEqualTo(1);
        job.step();
        assertThat(job.layer.countedSteps()).isEqualTo(1);
      }
    }
  }

  @Tag("several")
  @Test
  void frozenLayer_infers_andItsParametersHaveNoGradients() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = groupOf(2).trace(trace::add).build();
        Job job = new Job(group, layerOf(group).trainable(false).build(), 3, 0.5, 7, 4)) {
      assertThat(job.layer.isTrainable()).isFalse();
      job.layer.infer(job.xTensors, job.y);
      List<Integer> inferred = bits(job.y.get(0), job.y.get(1));
      List<Integer> state = LayerContract.bits(job.state(group.replica(0)));
      trace.clear();
      job.step();
      assertThat(trace).noneMatch(line -> line.contains("in place"));
      assertThat(bits(job.y.get(0), job.y.get(1))).isEqualTo(inferred);
      assertThat(LayerContract.bits(job.state(group.replica(0)))).isEqualTo(state);
      job.layer.gammaGradient(group.replica(0)).copyFromHost(zeros());
      job.layer.allReduceGradients();
      assertThat(trace).noneMatch(line -> line.contains("in place"));
      assertThat(job.layer.gammaGradient(group.replica(0)).copyToHost()).containsOnly(0);
      assertThat(job.dx.get(0).copyToHost()[0])
          .isCloseTo(job.dy.get(0)[0] / (float) Math.sqrt(1 + 1e-3), within(1e-6f));
      job.layer.setTrainable(true);
      job.step();
      assertThat(LayerContract.bits(job.state(group.replica(0)))).isNotEqualTo(state);
      assertThat(job.layer.countedSteps()).isEqualTo(1);
    }
  }

  // --------------------------------------------------------------------------------------------
  // shared and parallel

  /** A layer used twice in a step, as in a siamese network: its passes are independent. */
  @Tag("several")
  @Test
  void layerUsedTwice_keepsBothPasses_andCountsBoth() throws Exception {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4);
        Job other = new Job(group, layerOf(group).build(), 4, 2, 7, 4)) {
      other.step();
      List<Integer> alone = bits(other.dx.get(0), other.dx.get(1));
      job.onThreads(
          replica -> {
            int rank = replica.rank();
            try (ForwardPass first =
                    job.layer.forward(replica, job.xTensors.get(rank), job.y.get(rank), true);
                ForwardPass second =
                    job.layer.forward(replica, other.xTensors.get(rank), other.y.get(rank), true)) {
              job.layer.backward(second, other.dyTensors.get(rank), other.dx.get(rank));
              job.layer.backward(first, job.dyTensors.get(rank), job.dx.get(rank));
            }
          });
      assertThat(bits(other.dx.get(0), other.dx.get(1))).isEqualTo(alone);
      assertThat(job.layer.countedSteps()).isEqualTo(2);
    }
  }

  @Tag("several")
  @Test
  void layersInParallelBranches_areEachThemselves() throws Exception {
    try (ReplicaGroup group = group(2);
        Job left = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4);
        Job right = new Job(group, layerOf(group).momentum(0.5).build(), 3, 0.5, 7, 4)) {
      left.step();
      right.step();
      List<Integer> leftAlone = LayerContract.bits(left.results().subList(0, 4));
      List<Integer> rightAlone = LayerContract.bits(right.results().subList(0, 4));
      left.onThreads(
          replica -> {
            int rank = replica.rank();
            try (ForwardPass a =
                    left.layer.forward(replica, left.xTensors.get(rank), left.y.get(rank), true);
                ForwardPass b =
                    right.layer.forward(
                        replica, right.xTensors.get(rank), right.y.get(rank), true)) {
              left.layer.backward(a, left.dyTensors.get(rank), left.dx.get(rank));
              right.layer.backward(b, right.dyTensors.get(rank), right.dx.get(rank));
            }
          });
      assertThat(LayerContract.bits(left.results().subList(0, 4))).isEqualTo(leftAlone);
      assertThat(LayerContract.bits(right.results().subList(0, 4))).isEqualTo(rightAlone);
    }
  }

  /** Loss scaling: gradients overflow, the step is skipped, the next one is right. */
  @Tag("several")
  @Test
  void gradientsWithInfinities_changeNothingButTheGradients() {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4);
        Job clean = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4)) {
      float[] scaled = job.dy.get(1).clone();
      scaled[2] = Float.POSITIVE_INFINITY;
      job.dyTensors.get(1).copyFromHost(scaled);
      job.step();
      assertThat(job.layer.betaGradient(group.replica(1)).copyToHost()[2]).isInfinite();
      assertThat(job.layer.betaGradient(group.replica(1)).copyToHost()[1]).isFinite();
      job.dyTensors.get(1).copyFromHost(job.dy.get(1));
      job.step();
      clean.step();
      clean.step();
      assertThat(LayerContract.bits(job.results())).isEqualTo(LayerContract.bits(clean.results()));
    }
  }

  // ---------------------------------------------------------------------------------------------
  // moving statistics

  @Tag("several")
  @Test
  void cumulativeAverage_isTheMeanOfAllSteps_andCanBeResumed() {
    try (ReplicaGroup group = group(2);
        Job first = new Job(group, layerOf(group).cumulativeAverage().build(), 3, 0.5, 7, 4);
        Job second = new Job(group, layerOf(group).momentum(0).build(), 4, 2, 7, 4)) {
      Replica replica = group.replica(0);
      first.step();
      float[] one = first.layer.movingMean(replica).copyToHost();
      second.step();
      float[] two = second.layer.movingMean(replica).copyToHost();
      first.layer.forward(second.xTensors, second.y, true).close();
      float[] mean = first.layer.movingMean(replica).copyToHost();
      for (int c = 0; c < CHANNELS; c++) {
        assertThat(mean[c]).isCloseTo((one[c] + two[c]) / 2, within(1e-6f));
      }
      assertThat(first.layer.countedSteps()).isEqualTo(2);
      first.layer.setCountedSteps(0);
      first.layer.forward(second.xTensors, second.y, true).close();
      assertThat(bits(first.layer.movingMean(replica)))
          .isEqualTo(bits(second.layer.movingMean(replica)));
      assertIllegal(() -> first.layer.setCountedSteps(-1), "-1");
    }
  }

  @Test
  void foldedScaleAndShift_areInference() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 9)) {
      job.drawParameters(5, new Oracle(CHANNELS, 0.8, 1e-3));
      job.step();
      job.layer.infer(job.xTensors, job.y);
      SyncBatchNormalization.Folded folded = job.layer.fold(group.replica(0));
      float[] y = job.y.get(0).copyToHost();
      for (int i = 0; i < y.length; i++) {
        double expected =
            job.x.get(0)[i] * folded.scale()[i % CHANNELS] + folded.shift()[i % CHANNELS];
        assertThat((double) y[i]).isCloseTo(expected, within(2e-6));
      }
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

  // ------------------------------------------------------------------------------- weights,
  // penalties, constraints

  @Tag("several")
  @Test
  void weights_areWrittenToAll_andReadAsTheMean() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 2)
                .weights(List.of(row(1, 2), row(3, 4), row(5, 6), row(7, 8)))
                .build()) {
      for (Replica replica : group.replicas()) {
        assertThat(layer.variables(replica).keySet())
            .containsExactly("gamma", "beta", "moving_mean", "moving_variance");
        assertThat(layer.beta(replica).copyToHost()).containsExactly(3, 4);
        assertThat(layer.movingVariance(replica).copyToHost()).containsExactly(7, 8);
      }
      layer.movingMean(group.replica(1)).copyFromHost(7f, 10f);
      assertThat(layer.getWeights().get(2)).containsExactly(6, 8);
      assertIllegal(() -> layer.setWeights(List.of(row(1, 2))), "1 weights for 4 variables");
      assertIllegal(
          () -> layer.setWeights(List.of(row(1, 2), row(1), row(1, 2), row(1, 2))),
          "beta has 1 values");
    }
  }

  private static double[] row(double... values) {
    return values;
  }

  @Tag("several")
  @Test
  void penalties_areInTheLossOnce_andInTheSummedGradientsOnce() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 3)
                .gammaRegularizer(Regularizers.l2(0.5))
                .betaRegularizer(Regularizers.l1(0.25))
                .betaInitializer(Initializers.constant(-1))
                .build()) {
      assertThat(layer.losses()).containsExactly(1.5, 0.75);
      layer.addRegularizationGradients();
      layer.allReduceGradients();
      for (Replica replica : group.replicas()) {
        assertThat(layer.gammaGradient(replica).copyToHost()).containsOnly(1f);
        assertThat(layer.betaGradient(replica).copyToHost()).containsOnly(-0.25f);
      }
    }
  }

  @Tag("several")
  @Test
  void constraints_areAppliedWhenAsked_onEveryReplica() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 2)
                .gammaConstraint(Constraints.maxNorm(2))
                .betaConstraint(Constraints.nonNeg())
                .weights(List.of(row(3, 4), row(-1, 1), row(0, 0), row(1, 1)))
                .build()) {
      assertThat(layer.gamma(group.replica(0)).copyToHost()).containsExactly(3, 4);
      layer.applyConstraints();
      for (Replica replica : group.replicas()) {
        assertThat(layer.gamma(replica).copyToHost())
            .containsExactly(new float[] {1.2f, 1.6f}, within(1e-6f));
        assertThat(layer.beta(replica).copyToHost()).containsExactly(-0f, 1f);
      }
    }
  }

  @Test
  void closedLayer_isRefused() {
    try (ReplicaGroup group = group(1)) {
      SyncBatchNormalization layer = layerOf(group).build();
      layer.close();
      for (Runnable call :
          List.<Runnable>of(
              layer::countedSteps,
              () -> layer.setCountedSteps(1),
              layer::getWeights,
              layer::applyConstraints,
              layer::allReduceGradients,
              () -> layer.fold(group.replica(0)))) {
        assertThatThrownBy(call::run)
            .isInstanceOf(IllegalStateException.class)
            .hasMessage("the layer is closed");
      }
    }
  }

  @Test
  void renormOfTheUnbiasedVariance_isRefused() {
    try (ReplicaGroup group = group(1)) {
      assertIllegal(
          () -> layerOf(group).renorm(true).unbiasedRunningVariance(true).build(),
          "not with the unbiased variance");
    }
  }

  /** Initial values are drawn once and are the same on every replica. */
  @Tag("several")
  @Test
  void randomInitialValues_areTheSameOnAllReplicas() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 32)
                .gammaInitializer(Initializers.randomNormal())
                .betaInitializer(null)
                .build()) {
      float[] beta = layer.beta(group.replica(0)).copyToHost();
      assertThat(beta[0]).isNotZero().isBetween(-0.31f, 0.31f); // glorot_uniform: sqrt(6 / 64)
      assertThat(layer.beta(group.replica(1)).copyToHost()).isEqualTo(beta);
      assertThat(bits(layer.gamma(group.replica(1))))
          .isEqualTo(bits(layer.gamma(group.replica(0))));
      assertThat(layer.gamma(group.replica(0)).copyToHost()).doesNotHaveDuplicates();
    }
  }

  // ------------------------------------------------------------------------------------------
  // gradients of the batch

  @Tag("several")
  @Test
  void gradients_areLocal_untilTheyAreAllReduced() throws Exception {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4)) {
      job.step();
      float[] first = job.layer.gammaGradient(group.replica(0)).copyToHost();
      float[] second = job.layer.gammaGradient(group.replica(1)).copyToHost();
      float[] sums = new float[CHANNELS];
      for (int c = 0; c < CHANNELS; c++) {
        sums[c] = first[c] + second[c];
      }
      assertThat(first).isNotEqualTo(second);
      job.layer.allReduceGradients();
      for (Replica replica : group.replicas()) {
        assertThat(job.layer.gammaGradient(replica).copyToHost())
            .containsExactly(sums, within(1e-6f));
      }
      job.step();
      job.onThreads(replica -> job.layer.allReduceGradients(replica));
      assertThat(job.layer.gammaGradient(group.replica(1)).copyToHost())
          .containsExactly(sums, within(1e-6f));
    }
  }
}
