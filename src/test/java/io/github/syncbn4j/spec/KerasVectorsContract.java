package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Devices;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The layer against the 30 vectors of the specification, in float32 and in float64. */
@Timeout(60)
abstract class KerasVectorsContract implements Devices {
  /** The specification's, absolute. */
  private static final double FLOAT32_TOLERANCE = 1e-5;

  /** The specification's for the gradients of V16: a variance near 0.01, after 5 renorm steps. */
  private static final double V16_GRADIENT_TOLERANCE = 2e-4;

  /** The specification's; the file's digits come on top. */
  private static final double FLOAT64_TOLERANCE = 1e-12;

  static List<KerasVector> ofOneReplica() {
    return KerasVector.all().stream().filter(vector -> vector.replicas() == 1).toList();
  }

  static List<KerasVector> ofSeveralReplicas() {
    return KerasVector.all().stream().filter(vector -> vector.replicas() > 1).toList();
  }

  @Test
  void thereAreThirty() {
    assertThat(KerasVector.all()).hasSize(30);
  }

  @ParameterizedTest
  @MethodSource("ofOneReplica")
  void oneReplica_float32(KerasVector vector) {
    assertIsGiven(vector, DType.FLOAT32);
  }

  @ParameterizedTest
  @MethodSource("ofOneReplica")
  void oneReplica_float64(KerasVector vector) {
    assertIsGiven(vector, DType.FLOAT64);
  }

  @Tag("several")
  @ParameterizedTest
  @MethodSource("ofSeveralReplicas")
  void severalReplicas_float32(KerasVector vector) {
    assertIsGiven(vector, DType.FLOAT32);
  }

  @Tag("several")
  @ParameterizedTest
  @MethodSource("ofSeveralReplicas")
  void severalReplicas_float64(KerasVector vector) {
    assertIsGiven(vector, DType.FLOAT64);
  }

  private void assertIsGiven(KerasVector vector, DType dtype) {
    Step last = assertStepsAreGiven(vector, dtype);
    assertBatchStatisticsAreGiven(vector, dtype, last);
  }

  /** Returns the last training step. */
  private Step assertStepsAreGiven(KerasVector vector, DType dtype) {
    PlainLayer plain = new PlainLayer(vector.options, vector.channels(), vector.replicas());
    plain.variables.putAll(vector.initial());
    try (TestedLayer tested = layer(vector, vector.options, dtype)) {
      vector.initial().forEach(tested::set);
      Map<String, double[]> got = Map.of();
      Step last = null;
      for (Step step : vector.steps()) {
        last = step;
        got = tested.step(step);
        Map<String, PlainLayer.Result> want = plain.step(step);
        if (dtype == DType.FLOAT64) { // float32 would see other inputs
          Accuracy.assertClose(got, want, dtype, vector.toString());
        }
      }
      for (Map.Entry<String, double[]> want : vector.expected().entrySet()) {
        assertClose(vector, dtype, want.getKey(), got.get(want.getKey()), want.getValue());
      }
      if (vector.inference() != null) {
        Map<String, double[]> inferred = tested.step(vector.inference());
        for (int rank = 0; rank < vector.replicas(); rank++) {
          assertClose(
              vector, dtype, "inference", inferred.get("y of rank " + rank), vector.inferred());
        }
      }
      return last;
    }
  }

  /** With momentum 0 the moving statistics are those of the last batch. */
  private void assertBatchStatisticsAreGiven(KerasVector vector, DType dtype, Step last) {
    Options options = new Options();
    options.axis = vector.options.axis;
    options.momentum = 0;
    try (TestedLayer tested = layer(vector, options, dtype)) {
      Map<String, double[]> got = tested.step(last);
      for (int rank = 0; rank < vector.replicas(); rank++) {
        String ofRank = " of rank " + rank;
        assertClose(
            vector, dtype, "batch mean", got.get("moving_mean" + ofRank), vector.batchMean());
        assertClose(
            vector,
            dtype,
            "batch variance",
            got.get("moving_variance" + ofRank),
            vector.batchVariance());
      }
    }
  }

  private TestedLayer layer(KerasVector vector, Options options, DType dtype) {
    return new TestedLayer(
        group(vector.replicas()), dtype, options, UnaryOperator.identity(), vector.inputShape());
  }

  private static void assertClose(
      KerasVector vector, DType dtype, String name, double[] got, double[] want) {
    boolean gradient = name.startsWith("dx") || name.contains("gradient");
    assertThat(got).as(name).hasSameSizeAs(want);
    for (int i = 0; i < want.length; i++) {
      double tolerance = FLOAT64_TOLERANCE + KerasVector.cutOff(want[i]);
      if (dtype == DType.FLOAT32) {
        tolerance =
            gradient && vector.id().equals("V16") ? V16_GRADIENT_TOLERANCE : FLOAT32_TOLERANCE;
      }
      assertThat(Math.abs(got[i] - want[i]))
          .as("%s, %s[%d] is %s, must be %s", vector, name, i, got[i], want[i])
          .isLessThanOrEqualTo(tolerance);
    }
  }
}
