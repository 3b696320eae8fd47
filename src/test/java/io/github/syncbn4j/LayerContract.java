package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.assertj.core.data.Offset;
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
    try (Job job = Job.of(this, channels, 0.5, channels, rows)) {
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
    try (Job job = Job.of(this, 3, 1e4, 6, 200, 100)) {
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
    try (Job job = Job.of(this, 4, 0, 3, 5, 5)) {
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
    try (Job job = Job.of(this, 5, 0, 4, 0, 0)) {
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
      try (Job job = Job.of(this, 6, 3, 37, 50, 0, 1, 70)) {
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

  // ------------------------------------------------------------------------------------------------------- passes

  @Tag("several")
  @Test
  void severalPassesOpen_eachKeepsItsOwnBatch() {
    try (Job job = Job.of(this, 7, 0, 5, 9, 4)) {
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
    try (Job job = Job.of(this, 8, 0, 5, 9)) {
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
