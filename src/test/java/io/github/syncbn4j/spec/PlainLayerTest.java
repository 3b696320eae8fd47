package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The plain formulas against the vectors, which come from the real layers. */
class PlainLayerTest {
  private static final double TOLERANCE = 1e-12;

  static List<KerasVector> vectors() {
    return KerasVector.all();
  }

  @ParameterizedTest
  @MethodSource("vectors")
  void vector_isGivenByTheFormulas(KerasVector vector) {
    PlainLayer layer = new PlainLayer(vector.options, vector.channels(), vector.replicas());
    layer.variables.putAll(vector.initial());
    Map<String, PlainLayer.Result> got = Map.of();
    for (Step step : vector.steps()) {
      got = layer.step(step);
    }
    Map<String, PlainLayer.Result> last = got;
    vector.expected().forEach((name, want) -> assertClose(name, last.get(name).values(), want));
    assertClose("batch mean", layer.mean, vector.batchMean());
    assertClose("batch variance", layer.variance, vector.batchVariance());
    if (vector.inference() != null) {
      assertClose(
          "inference",
          layer.step(vector.inference()).get("y of rank 0").values(),
          vector.inferred());
    }
  }

  private static void assertClose(String name, double[] got, double[] want) {
    assertThat(got).as(name).hasSameSizeAs(want);
    for (int i = 0; i < want.length; i++) {
      assertThat(Math.abs(got[i] - want[i]))
          .as("%s[%d] is %s, must be %s", name, i, got[i], want[i])
          .isLessThanOrEqualTo(TOLERANCE + KerasVector.cutOff(want[i]));
    }
  }
}
