package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.assertj.core.data.Offset;
import org.bytedeco.javacpp.FloatPointer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * What the layer does on every kind of device. Tests that need more than one are tagged {@code
 * several}.
 */
@Timeout(120)
abstract class LayerContract implements Devices {
  /**
   * Relative to each tensor's scale: float32 rounding of a few operations on values of order one.
   */
  private static final double TOLERANCE = 4e-6;

  final Job job(long seed, double offset, int channels, int... rows) {
    ReplicaGroup group = group(rows.length);
    return new Job(
        group,
        SyncBatchNormalization.builder(group, channels).momentum(0.8).build(),
        seed,
        offset,
        rows);
  }

  // ------------------------------------------------------------------------------------------------------ numbers

  @ParameterizedTest
  @CsvSource({"1, 1", "1, 17", "3, 8", "64, 33", "129, 70", "2048, 3"})
  void stepsOfOneReplica_matchFloat64(int channels, int rows) {
    assertStepsMatchFloat64(channels, rows);
  }

  @Tag("several")
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "7   | 4, 9",
        "130 | 16, 16",
        "5   | 0, 6",
        "5   | 6, 0",
        "33  | 12, 0, 1, 7",
        "2   | 300, 1, 200, 77",
      })
  void stepsOfSeveralReplicas_matchFloat64(int channels, String rows) {
    assertStepsMatchFloat64(
        channels,
        Arrays.stream(rows.split(",")).map(String::strip).mapToInt(Integer::parseInt).toArray());
  }

  private void assertStepsMatchFloat64(int channels, int... rows) {
    Oracle oracle = new Oracle(channels, 0.8, 1e-3);
    try (Job job = job(channels, 0.5, channels, rows)) {
      job.drawParameters(11, oracle);
      for (int step = 0; step < 2; step++) {
        job.step();
        assertMatches(job, oracle, true);
      }
      try (ForwardPass pass = job.layer.forward(job.xTensors, job.y, false)) {
        job.layer.backward(pass, job.dyTensors, job.dx);
      }
      assertMatches(job, oracle, false);
    }
  }

  private static void assertMatches(Job job, Oracle oracle, boolean training) {
    List<double[]> y = oracle.forward(job.x, training);
    List<double[]> dx = oracle.backward(job.x, job.dy);
    for (Replica replica : job.group.replicas()) {
      int rank = replica.rank();
      assertClose("y of " + replica, job.y.get(rank), y.get(rank));
      assertClose("dx of " + replica, job.dx.get(rank), dx.get(rank));
      assertClose(
          "gamma gradient of " + replica,
          job.layer.gammaGradient(replica),
          oracle.gammaGradient(job.x.get(rank), job.dy.get(rank)));
      assertClose(
          "beta gradient of " + replica,
          job.layer.betaGradient(replica),
          oracle.betaGradient(job.dy.get(rank)));
      assertClose("moving mean of " + replica, job.layer.movingMean(replica), oracle.movingMean);
      assertClose(
          "moving variance of " + replica,
          job.layer.movingVariance(replica),
          oracle.movingVariance);
    }
  }

  private static void assertClose(String what, DeviceTensor got, double[] want) {
    float[] values = got.copyToHost();
    assertThat(values).as(what).hasSize(want.length);
    double scale = 1;
    for (double w : want) {
      scale = Math.max(scale, Math.abs(w));
    }
    for (int i = 0; i < want.length; i++) {
      assertThat(Math.abs(values[i] - want[i]))
          .as("%s[%d]: got %s, want %s", what, i, values[i], want[i])
          .isLessThanOrEqualTo(TOLERANCE * scale);
    }
  }

  @Tag("several")
  @Test
  void meanFarFromZero_keepsItsDigits() {
    Oracle oracle = new Oracle(6, 0.8, 1e-3);
    try (Job job = job(3, 1e4, 6, 200, 100)) {
      job.step();
      List<double[]> y = oracle.forward(job.x, true);
      for (int rank = 0; rank < 2; rank++) {
        float[] got = job.y.get(rank).copyToHost();
        for (int i = 0; i < got.length; i++) {
          assertThat((double) got[i]).isCloseTo(y.get(rank)[i], within(2e-6));
        }
        float[] variance = job.layer.movingVariance(job.group.replica(rank)).copyToHost();
        for (int c = 0; c < 6; c++) {
          assertThat(variance[c] / oracle.movingVariance[c]).isCloseTo(1, within(1e-6));
        }
      }
    }
  }

  private static Offset<Double> within(double offset) {
    return Offset.offset(offset);
  }

  @Tag("several")
  @Test
  void nan_staysInItsChannel() {
    try (Job job = job(4, 0, 3, 5, 5)) {
      job.x.get(1)[3] = Float.NaN; // channel 0
      job.xTensors.get(1).copyFromHost(job.x.get(1));
      job.step();
      for (Replica replica : job.group.replicas()) {
        float[] y = job.y.get(replica.rank()).copyToHost();
        for (int i = 0; i < y.length; i++) {
          assertThat(Float.isNaN(y[i])).as("y[%d] of %s", i, replica).isEqualTo(i % 3 == 0);
        }
        float[] mean = job.layer.movingMean(replica).copyToHost();
        assertThat(mean[0]).isNaN();
        assertThat(mean[1]).isFinite();
      }
    }
  }

  @Tag("several")
  @Test
  void stepWithoutExamplesAnywhere_changesNoState() {
    try (Job job = job(5, 0, 4, 0, 0)) {
      List<float[]> before = job.state(job.group.replica(0));
      job.step();
      assertThat(bits(job.state(job.group.replica(0)))).isEqualTo(bits(before));
      assertThat(bits(job.state(job.group.replica(1)))).isEqualTo(bits(before));
      assertThat(job.layer.gammaGradient(job.group.replica(0)).copyToHost()).containsOnly(0f);
    }
  }

  // -------------------------------------------------------------------------------------------------- determinism

  @Tag("several")
  @Test
  void oneThreadAndAThreadAReplica_giveTheSameBits_everyRun() throws Exception {
    List<Integer> first = null;
    for (int run = 0; run < 4; run++) {
      try (Job job = job(6, 3, 37, 50, 0, 1, 70)) {
        for (int step = 0; step < 3; step++) {
          if (run % 2 == 0) {
            job.step();
          } else {
            job.stepByThreads();
          }
        }
        List<Integer> bits = bits(job.results());
        if (first == null) {
          first = bits;
        }
        assertThat(bits).as("run %d", run).isEqualTo(first);
        for (Replica replica : job.group.replicas()) {
          assertThat(bits(job.state(replica)))
              .as("state of %s", replica)
              .isEqualTo(bits(job.state(job.group.replica(0))));
        }
      }
    }
  }

  static List<Integer> bits(List<float[]> tensors) {
    List<Integer> bits = new ArrayList<>();
    for (float[] tensor : tensors) {
      for (float value : tensor) {
        bits.add(Float.floatToRawIntBits(value));
      }
    }
    return bits;
  }

  // ------------------------------------------------------------------------------------------------------- passes

  @Tag("several")
  @Test
  void severalPassesOpen_eachKeepsItsOwnBatch() {
    try (Job job = job(7, 0, 5, 9, 4)) {
      job.step();
      List<float[]> alone = List.of(job.dx.get(0).copyToHost(), job.dx.get(1).copyToHost());
      List<DeviceTensor> other = new ArrayList<>();
      for (Replica replica : job.group.replicas()) {
        DeviceTensor tensor = replica.allocate(DType.FLOAT32, 3, 5);
        float[] values = new float[15];
        for (int i = 0; i < values.length; i++) {
          values[i] = i * i;
        }
        tensor.copyFromHost(values);
        other.add(tensor);
      }
      try (ForwardPass first = job.layer.forward(job.xTensors, job.y, true);
          ForwardPass second = job.layer.forward(other, other, true)) {
        assertThat(second).isNotSameAs(first);
        job.layer.backward(first, job.dyTensors, job.dx);
      }
      assertThat(bits(List.of(job.dx.get(0).copyToHost(), job.dx.get(1).copyToHost())))
          .isEqualTo(bits(alone));
    }
  }

  @Test
  void closedPass_isRefused_alsoWhenItsMemoryServesAnother() {
    try (Job job = job(8, 0, 5, 9)) {
      ForwardPass pass = job.layer.forward(job.xTensors, job.y, true);
      pass.close();
      try (ForwardPass next = job.layer.forward(job.xTensors, job.y, true)) {
        pass.close();
        assertThatThrownBy(() -> job.layer.backward(pass, job.dyTensors, job.dx))
            .isInstanceOf(IllegalStateException.class)
            .hasMessageContaining("the pass is closed");
        job.layer.backward(next, job.dyTensors, job.dx);
      }
    }
  }

  @Test
  void centerAndScale_canBeLeftOut() {
    ReplicaGroup group = group(1);
    try (Job job =
        new Job(
            group,
            SyncBatchNormalization.builder(group, 4).center(false).scale(false).build(),
            9,
            0,
            8)) {
      try (ForwardPass pass = job.layer.forward(job.xTensors, job.y, true)) {
        job.layer.backward(pass, job.dyTensors, job.dx);
      }
      Oracle oracle = new Oracle(4, 0.99, 1e-3);
      assertClose("y", job.y.get(0), oracle.forward(job.x, true).get(0));
      assertClose("dx", job.dx.get(0), oracle.backward(job.x, job.dy).get(0));
      assertThatThrownBy(() -> job.layer.gamma(group.replica(0)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("scale(false)");
      assertThatThrownBy(() -> job.layer.betaGradient(group.replica(0)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("center(false)");
    }
  }

  // ------------------------------------------------------------------------------------------------------- errors

  @Tag("several")
  @Test
  void tensorsThatDoNotFit_areRefusedWithTheirValues() {
    try (Job job = job(10, 0, 5, 4, 4);
        ReplicaGroup cpu = ReplicaGroup.cpus(1)) {
      Replica replica = job.group.replica(0);
      DeviceTensor good = job.xTensors.get(0);
      assertRefused(job, replica.allocate(DType.FLOAT16, 4, 5), "float32", "float16");
      assertRefused(job, replica.allocate(DType.FLOAT32), "rank 1 or more", "not 0");
      assertRefused(job, replica.allocate(DType.FLOAT32, 5, 4), "4 channels", "the layer has 5");
      assertThatThrownBy(
              () ->
                  forward(
                      job,
                      good,
                      replica.wrapStrided(
                          good.address(), DType.FLOAT32, new long[] {4, 5}, new long[] {0, 1})))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("y cannot be written: elements share memory")
          .hasMessageContaining("strides [0, 1]");
      if (!replica.device().memorySpace().equals("host")) {
        assertRefused(job, cpu.replica(0).allocate(DType.FLOAT32, 4, 5), "x is on cpu:0", "rank 0");
        assertRefused(job, job.group.replica(1).allocate(DType.FLOAT32, 4, 5), "x is on", "rank 0");
      }
      DeviceTensor closed = replica.allocate(DType.FLOAT32, 4, 5);
      closed.close();
      closed.close();
      assertThatThrownBy(() -> forward(job, closed, job.y.get(0)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      assertThatThrownBy(() -> forward(job, good, replica.allocate(DType.FLOAT32, 3, 5)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("[3, 5]")
          .hasMessageContaining("[4, 5]");
      assertThatThrownBy(() -> job.layer.forward(List.of(good), job.y, true))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("1 tensors")
          .hasMessageContaining("2 replicas");
      DeviceTensor strange =
          cpu.replica(0).wrap(good.address(), DType.FLOAT32, 4, 5); // on a GPU: not even there
      assertThatThrownBy(() -> forward(job, strange, job.y.get(0)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("x is");
      assertThatThrownBy(() -> job.layer.forward(cpu.replica(0), good, good, true))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("another group");
      job.step(); // nothing of this failed the group
    }
  }

  private static void assertRefused(Job job, DeviceTensor x, String... texts) {
    assertThatThrownBy(() -> forward(job, x, job.y.get(0)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContainingAll(texts);
  }

  private static void forward(Job job, DeviceTensor x0, DeviceTensor y0) {
    job.layer.forward(List.of(x0, job.xTensors.get(1)), List.of(y0, job.y.get(1)), true).close();
  }

  @Test
  void options_areRefusedWithTheirValues() {
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      assertIllegal(() -> SyncBatchNormalization.builder(group, 0), "channels", "not 0");
      assertIllegal(() -> SyncBatchNormalization.builder(group, 1).epsilon(-1), "epsilon", "-1.0");
      assertIllegal(
          () -> SyncBatchNormalization.builder(group, 1).momentum(Double.NaN), "momentum", "NaN");
      assertIllegal(() -> replica.allocate(DType.FLOAT32, 2, -3), "-3", "[2, -3]");
      assertIllegal(() -> replica.allocate(DType.FLOAT32, 1L << 40, 1L << 40), "2^63");
      assertIllegal(() -> replica.wrap(0, DType.FLOAT32, 2, 2), "address 0");
      assertIllegal(() -> replica.wrap(0x1002, DType.FLOAT32, 2, 2), "0x1002", "not aligned");
      assertIllegal(() -> replica.allocate(DType.FLOAT32, 2).copyFromHost(1, 2, 3), "3 values");
      assertIllegal(() -> ReplicaGroup.builder().threads(0), "1 to 256", "not 0");
      assertIllegal(() -> ReplicaGroup.builder().timeout(Duration.ZERO), "PT0S");
    }
  }

  static void assertIllegal(Runnable call, String... texts) {
    assertThatThrownBy(call::run)
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContainingAll(texts);
  }

  @Test
  void closedGroup_isRefused() {
    Job job = job(12, 0, 5, 4);
    DeviceTensor tensor = job.xTensors.get(0);
    job.close();
    job.close();
    assertThatThrownBy(job.group::check).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> job.group.replica(0).allocate(DType.FLOAT32, 1))
        .isInstanceOf(IllegalStateException.class)
        .hasMessage("the group is closed");
    assertThatThrownBy(tensor::copyToHost).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(job::step).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> SyncBatchNormalization.builder(job.group, 3).build())
        .isInstanceOf(IllegalStateException.class);
  }

  // ----------------------------------------------------------------------------------------------------- failures

  @Test
  void closingAVariable_leavesItToTheLayer() {
    try (Job job = job(13, 0, 3, 8)) {
      Replica replica = job.group.replica(0);
      job.step();
      List<Integer> y = bits(List.of(job.y.get(0).copyToHost()));
      try (DeviceTensor gamma = job.layer.gamma(replica)) {
        assertThat(gamma.copyToHost()).containsOnly(1f);
      }
      job.step();
      assertThat(bits(List.of(job.y.get(0).copyToHost()))).isEqualTo(y);
      DeviceTensor mean = job.layer.movingMean(replica);
      job.layer.close();
      assertThatThrownBy(mean::copyToHost)
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      assertThatThrownBy(job::step)
          .isInstanceOf(IllegalStateException.class)
          .hasMessage("the layer is closed");
    }
  }

  @Test
  void pointerThatIsTooShort_isRefused() {
    try (ReplicaGroup group = group(1);
        FloatPointer pointer = new FloatPointer(4)) {
      assertIllegal(
          () -> group.replica(0).wrap(pointer, DType.FLOAT32, 3, 2), "16 bytes", "needs 24");
    }
  }

  @Test
  void stepThatEndsEarly_failsTheGroup() {
    ReplicaGroup group =
        groupOf(1)
            .trace(
                line -> {
                  throw new IllegalStateException("no trace");
                })
            .build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4);
    assertThatThrownBy(job::step).isInstanceOf(IllegalStateException.class).hasMessage("no trace");
    assertThatThrownBy(job::step)
        .isInstanceOf(CollectiveException.class)
        .hasMessage("the group has failed: no trace");
    group.close();
  }

  @Tag("several")
  @Test
  void closingTheLayer_afterAReplicaIsLost_endsInTime() {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofMillis(500)).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    job.step(); // the ranks are connected: a later call need not wait on the host
    try {
      job.layer.forward(group.replica(0), job.xTensors.get(0), job.y.get(0), true);
    } catch (CollectiveException e) {
      assertThat(e).hasMessageContaining("did not come"); // where the host waits
    }
    long start = System.nanoTime();
    job.layer.close();
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofMillis(1500));
    assertThat(group.failure()).isPresent();
    try {
      group.close();
    } catch (CollectiveException e) {
      assertThat(e).isSameAs(group.failure().get());
    }
  }

  @Tag("several")
  @Test
  void missingReplica_endsTheOthersInTime_andANewGroupWorks() throws Exception {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofMillis(500)).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    List<float[]> before = job.state(group.replica(0));
    long start = System.nanoTime();
    assertThatThrownBy(
            () -> {
              job.layer.forward(group.replica(0), job.xTensors.get(0), job.y.get(0), true);
              group.replica(0).synchronize();
            })
        .isInstanceOf(CollectiveException.class);
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofMillis(1500));
    assertThat(group.failure()).isPresent();
    assertThatThrownBy(job::step)
        .isInstanceOf(CollectiveException.class)
        .hasMessageStartingWith("the group has failed");
    for (Replica replica : group.replicas()) {
      assertThat(bits(job.state(replica))).as("state of %s", replica).isEqualTo(bits(before));
    }
    job.close();
    try (Job next = job(2, 0, 3, 4, 4)) {
      next.step();
    }
  }

  @Tag("several")
  @Test
  void replicasAtDifferentLayers_areTold_andChangeNoState() throws Exception {
    ReplicaGroup group = group(2);
    SyncBatchNormalization other = SyncBatchNormalization.builder(group, 3).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    CountDownLatch enqueued = new CountDownLatch(2);
    assertThatThrownBy(
            () ->
                job.onThreads(
                    replica -> {
                      int rank = replica.rank();
                      try {
                        (rank == 0 ? job.layer : other)
                            .forward(replica, job.xTensors.get(rank), job.y.get(rank), true);
                      } finally {
                        enqueued.countDown();
                        enqueued.await();
                      }
                      replica.synchronize();
                    }))
        .isInstanceOf(CollectiveException.class)
        .hasMessageContaining("layer 1, forward of step 0")
        .hasMessageContaining("layer 0, forward of step 0");
    assertThat(group.failure()).isPresent();
    for (Replica replica : group.replicas()) {
      assertThat(job.layer.movingMean(replica).copyToHost()).containsOnly(0f);
      assertThat(job.layer.movingVariance(replica).copyToHost()).containsOnly(1f);
      assertThat(other.movingMean(replica).copyToHost()).containsOnly(0f);
    }
    group.close();
  }

  @Tag("several")
  @Test
  void replicasWithDifferentChannels_failInTime() {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofSeconds(1)).build();
    SyncBatchNormalization other = SyncBatchNormalization.builder(group, 4).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    DeviceTensor wide = group.replica(1).allocate(DType.FLOAT32, 3, 4);
    wide.copyFromHost(new float[12]);
    assertThatThrownBy(
            () ->
                job.onThreads(
                    replica -> {
                      if (replica.rank() == 0) {
                        job.layer.forward(replica, job.xTensors.get(0), job.y.get(0), true);
                      } else {
                        other.forward(replica, wide, wide, true);
                      }
                      replica.synchronize();
                    }))
        .isInstanceOf(CollectiveException.class);
    group.close();
  }

  // -------------------------------------------------------------------------------------------------------- trace

  @Tag("several")
  @Test
  void trace_showsTheSameKernelsAndOneExchangeADirection_onEveryReplica() {
    List<String> lines = Collections.synchronizedList(new ArrayList<>());
    ReplicaGroup group = groupOf(2).trace(lines::add).build();
    try (Job job = new Job(group, SyncBatchNormalization.builder(group, 7).build(), 1, 0, 8, 8)) {
      lines.clear();
      job.step();
      for (Replica replica : group.replicas()) {
        String id = replica.device().id();
        List<String> own = lines.stream().filter(line -> line.startsWith(id)).toList();
        assertThat(own).hasSize(6);
        assertThat(own.get(0)).contains("kernel stats");
        assertThat(own.get(1)).contains("32 float64"); // 2 rows of 2 + 2 * 7
        assertThat(own.get(2)).contains("kernel normalize");
        assertThat(own.get(3)).contains("kernel backward_reduce");
        assertThat(own.get(4)).contains("30 float64"); // 2 rows of 1 + 2 * 7
        assertThat(own.get(5)).contains("kernel backward_input");
      }
      lines.clear();
      job.layer.infer(job.xTensors, job.y);
      assertThat(lines).hasSize(2).allMatch(line -> line.contains("kernel normalize"));
    }
  }
}
