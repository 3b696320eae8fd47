package io.github.syncbn4j.nn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Keras' regularizers: names, penalties, gradients and configurations. */
class RegularizersTest {
  private static final double FLOAT_HUNDREDTH = 0.009999999776482582;
  private static final double[] WEIGHTS = {1, -2, 3};

  /** T69. */
  @ParameterizedTest
  @CsvSource({
    "l1, L1, .06",
    "L1, L1, .06",
    "l2, L2, .14",
    "L2, L2, .14",
    "l1_l2, L1L2, .20",
    "L1L2, L1L2, 0"
  })
  void get_everyNameOfKeras(String name, String className, double loss) {
    Regularizer regularizer = Regularizers.get(name);
    assertThat(regularizer.loss(WEIGHTS, 3)).isCloseTo(loss, within(1e-8));
    assertThat(Regularizers.serialize(regularizer)).containsEntry("class_name", className);
    assertThat(Regularizers.get(Map.of("class_name", name, "config", Map.of())))
        .isEqualTo(regularizer);
  }

  /** T68. */
  @Test
  void loss_ofALayer() {
    double[] ones = {1, 1, 1};
    assertThat(Regularizers.get("l2").loss(ones, 3)).isCloseTo(.03, within(1e-8));
    assertThat(Regularizers.l1(.5).loss(ones, 3)).isEqualTo(1.5);
  }

  @Test
  void factors_areRoundedToFloat32() {
    assertThat(Regularizers.l2(0.01).loss(new double[] {1})).isEqualTo(FLOAT_HUNDREDTH);
    assertThat(Regularizers.l1(0.01).loss(new double[] {1, 1}, 2)).isEqualTo(2 * FLOAT_HUNDREDTH);
    assertThat(Regularizers.serialize(Regularizers.l2(0.01)))
        .containsEntry("config", Map.of("l2", FLOAT_HUNDREDTH));
    assertThat(Regularizers.l2(0.01)).isEqualTo(Regularizers.l2(FLOAT_HUNDREDTH));
  }

  @Test
  void loss_edges() {
    assertThat(Regularizers.l1L2(1, 1).loss(new double[0], 0)).isZero();
    assertThat(Regularizers.l1L2(0, 0).loss(new double[] {Double.POSITIVE_INFINITY}, 1)).isZero();
    assertThat(Regularizers.l1(1).loss(new double[] {Double.NaN}, 1)).isNaN();
    assertThat(Regularizers.l1(-1).loss(WEIGHTS, 1, 3, 1)).isEqualTo(-6);
    assertThatThrownBy(() -> Regularizers.l1(1).loss(WEIGHTS, 4))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("3 values, but shape [4] has 4 elements");
    assertThatThrownBy(() -> Regularizers.l1(1).gradient(WEIGHTS, 4)).hasMessageContaining("[4]");
  }

  @Test
  void gradient_values() {
    assertThat(Regularizers.l1(.5).gradient(new double[] {2, -3, 0, -0.0}, 4))
        .containsExactly(.5, -.5, 0, 0);
    assertThat(Regularizers.l2(.5).gradient(new double[] {2, -3, 0}, 3)).containsExactly(2, -3, 0);
    assertThat(Regularizers.l1L2(1, .5).gradient(new double[] {2, -3, 0}, 3))
        .containsExactly(3, -4, 0);
    assertThat(Regularizers.get("L1L2").gradient(WEIGHTS, 3)).containsExactly(0, 0, 0);
    assertThat(WEIGHTS).as("not changed").containsExactly(1, -2, 3);
  }

  static Stream<Arguments> differentiable() {
    return Stream.of(
        Arguments.of(Regularizers.l1(.3), new long[] {12}),
        Arguments.of(Regularizers.l2(.3), new long[] {1, 3, 1, 4}),
        Arguments.of(Regularizers.l1L2(.3, -.7), new long[] {12}),
        Arguments.of(Regularizers.orthogonal(.3, "rows"), new long[] {3, 4}),
        Arguments.of(Regularizers.orthogonal(.3, "columns"), new long[] {3, 4}),
        Arguments.of(Regularizers.orthogonal(.3, "rows"), new long[] {1, 12}));
  }

  @ParameterizedTest
  @MethodSource("differentiable")
  void gradient_matchesFiniteDifferences(Regularizer regularizer, long[] shape) {
    double[] weights = new SplittableRandom(4).doubles(12, -1, 1).toArray();
    double[] gradient = regularizer.gradient(weights, shape);
    double step = 1e-6;
    for (int i = 0; i < weights.length; i++) {
      double[] up = weights.clone();
      double[] down = weights.clone();
      up[i] += step;
      down[i] -= step;
      double slope = (regularizer.loss(up, shape) - regularizer.loss(down, shape)) / (2 * step);
      assertThat(gradient[i]).as("weight %d", i).isCloseTo(slope, within(1e-8));
    }
  }

  @Test
  void orthogonal_values() {
    double[] matrix = {3, 0, 4, 3};
    // Rows (1, 0) and (0.8, 0.6), columns (0.6, 0.8) and (0, 1) after normalization.
    assertThat(Regularizers.orthogonal(1, "rows").loss(matrix, 2, 2)).isCloseTo(.8, within(1e-15));
    assertThat(Regularizers.orthogonal(1, "columns").loss(matrix, 2, 2))
        .isCloseTo(.8, within(1e-15));
    assertThat(Regularizers.get("orthogonal_regularizer").loss(matrix, 2, 2))
        .isCloseTo(.8 * FLOAT_HUNDREDTH, within(1e-15));
    assertThat(Regularizers.get("OrthogonalRegularizer"))
        .isEqualTo(Regularizers.orthogonal(.01, "rows"));
    double[] three = {1, 0, 1, 1, 0, 1};
    assertThat(Regularizers.orthogonal(1, "rows").loss(three, 3, 2))
        .as("mean over the pairs")
        .isCloseTo(Math.sqrt(2) / 3, within(1e-15));
  }

  @Test
  void orthogonal_withoutPairs() {
    Regularizer rows = Regularizers.orthogonal(1, "rows");
    assertThat(rows.loss(WEIGHTS, 1, 3)).isZero();
    assertThat(rows.gradient(WEIGHTS, 1, 3)).containsExactly(0, 0, 0);
    assertThat(rows.loss(new double[0], 1L << 40, 0)).isZero();
    assertThat(rows.gradient(new double[0], 0, 3)).isEmpty();
    assertThat(rows.loss(new double[4], 2, 2)).as("zero vectors").isZero();
    assertThat(rows.gradient(new double[4], 2, 2)).containsOnly(0);
  }

  @Test
  void orthogonal_refusesOtherRanks() {
    Regularizer rows = Regularizers.orthogonal(1, "rows");
    assertThatThrownBy(() -> rows.loss(WEIGHTS, 3))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(
            "Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape == [3]");
    assertThatThrownBy(() -> rows.gradient(WEIGHTS, 1, 3, 1)).hasMessageContaining("[1, 3, 1]");
    assertThatThrownBy(() -> rows.loss(WEIGHTS, 2, 2)).hasMessageContaining("[2, 2]");
    assertThatThrownBy(() -> Regularizers.orthogonal(1, "diagonals"))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("mode=diagonals");
  }

  @ParameterizedTest
  @ValueSource(doubles = {Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY, 1e39})
  void factors_mustBeFinite(double factor) {
    String message = factor + " is not a valid regularization penalty number";
    assertThatThrownBy(() -> Regularizers.l1(factor))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("l1: " + message);
    assertThatThrownBy(() -> Regularizers.l2(factor)).hasMessageContaining("l2: " + message);
    assertThatThrownBy(() -> Regularizers.l1L2(0, factor)).hasMessageContaining("l2: " + message);
    assertThatThrownBy(() -> Regularizers.orthogonal(factor, "rows"))
        .hasMessageContaining("factor: " + message);
  }

  // ------------------------------------------------------------------------------------------------ configurations

  static Stream<Arguments> configurations() {
    return Stream.of(
        Arguments.of(
            Regularizers.get("l1"),
            "{\"class_name\":\"L1\",\"config\":{\"l1\":0.009999999776482582}}"),
        Arguments.of(
            Regularizers.get("l2"),
            "{\"class_name\":\"L2\",\"config\":{\"l2\":0.009999999776482582}}"),
        Arguments.of(
            Regularizers.l1L2(.5, 0),
            "{\"class_name\":\"L1L2\",\"config\":{\"l1\":0.5,\"l2\":0.0}}"),
        Arguments.of(
            Regularizers.orthogonal(.25, "columns"),
            "{\"class_name\":\"OrthogonalRegularizer\",\"config\":"
                + "{\"factor\":0.25,\"mode\":\"columns\"}}"));
  }

  @ParameterizedTest
  @MethodSource("configurations")
  void configuration_roundTrips(Regularizer regularizer, String json) {
    Map<String, Object> config = Regularizers.serialize(regularizer);
    assertThat(ConfigJson.write(config)).isEqualTo(json);
    assertThat(ConfigJson.read(json)).isEqualTo(config);
    assertThat(Regularizers.get(ConfigJson.read(json))).isEqualTo(regularizer);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "{\"l\":0.5} | 0.5",
        "{\"l\":0.5,\"l1\":3} | 0.5",
        "{\"l1\":2} | 2",
        "{\"l1\":null} | 0.009999999776482582",
        "{} | 0.009999999776482582"
      })
  void configuration_ofL1(String config, double factor) {
    assertThat(Regularizers.get(Map.of("class_name", "L1", "config", ConfigJson.read(config))))
        .isEqualTo(Regularizers.l1(factor));
  }

  @Test
  void configuration_nullFactors() {
    Map<String, Object> config = ConfigJson.read("{\"l1\":null,\"l2\":null}");
    assertThat(Regularizers.get(Map.of("class_name", "L1L2", "config", config)))
        .isEqualTo(Regularizers.l1L2(0, 0));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "L1 | {\"l2\":1} | L1: unknown key \"l2\", known are [l1, l]",
        "l2 | {\"l2\":\"much\"} | l2: \"l2\" must be a number, got \"much\"",
        "l2 | {\"l2\":true} | l2: \"l2\" must be a number, got true",
        "L1L2 | {\"l\":1} | L1L2: unknown key \"l\", known are [l1, l2]",
        "orthogonal_regularizer | {\"mode\":null} | orthogonal_regularizer: \"mode\" must be a string,"
            + " got null",
        "bogus | {} | Unknown regularizer: bogus"
      })
  void configuration_errors(String name, String config, String message) {
    assertThatThrownBy(
            () -> Regularizers.get(Map.of("class_name", name, "config", ConfigJson.read(config))))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(message);
  }

  @Test
  void get_otherIdentifiers() {
    Regularizer own = new Own();
    assertThat(Regularizers.get(null)).isNull();
    assertThat(Regularizers.get(own)).isSameAs(own);
    assertThat(Regularizers.serialize(null)).isNull();
    assertThatThrownBy(() -> Regularizers.serialize(own))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(
            Own.class.getName() + " cannot be serialized: it is not one of Keras' regularizers");
    for (String name : List.of("bogus", "l3", "L1_L2")) {
      assertThatThrownBy(() -> Regularizers.get(name)).hasMessage("Unknown regularizer: " + name);
    }
    assertThatThrownBy(() -> Regularizers.get(.01))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("Could not interpret regularizer identifier: 0.01");
  }

  private static final class Own implements Regularizer {
    @Override
    public double loss(double[] weights, long... shape) {
      return 0;
    }

    @Override
    public double[] gradient(double[] weights, long... shape) {
      return new double[weights.length];
    }
  }
}
