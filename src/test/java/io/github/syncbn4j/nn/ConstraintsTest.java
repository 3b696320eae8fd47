package io.github.syncbn4j.nn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.assertj.core.data.Offset;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Keras' constraints: names, projections and configurations. */
class ConstraintsTest {
  /** The specification's numbers come from a run in float32. */
  private static final Offset<Double> CLOSE = within(2.5e-7);

  @ParameterizedTest
  @CsvSource({
    "max_norm, MaxNorm",
    "maxnorm, MaxNorm",
    "MaxNorm, MaxNorm",
    "non_neg, NonNeg",
    "nonneg, NonNeg",
    "NonNeg, NonNeg",
    "unit_norm, UnitNorm",
    "unitnorm, UnitNorm",
    "UnitNorm, UnitNorm",
    "min_max_norm, MinMaxNorm",
    "MinMaxNorm, MinMaxNorm",
    "radial_constraint, RadialConstraint",
    "RadialConstraint, RadialConstraint"
  })
  void get_everyNameOfKeras(String name, String className) {
    Constraint constraint = Constraints.get(name);
    assertThat(Constraints.serialize(constraint)).containsEntry("class_name", className);
    assertThat(Constraints.get(Map.of("class_name", name, "config", Map.of())))
        .isEqualTo(constraint);
  }

  @Test
  void get_defaults() {
    assertThat(Constraints.get("max_norm"))
        .isEqualTo(Constraints.maxNorm(2))
        .isEqualTo(Constraints.maxNorm(2, 0));
    assertThat(Constraints.get("non_neg")).isEqualTo(Constraints.nonNeg());
    assertThat(Constraints.get("unit_norm"))
        .isEqualTo(Constraints.unitNorm())
        .isEqualTo(Constraints.unitNorm(0));
    assertThat(Constraints.get("min_max_norm"))
        .isEqualTo(Constraints.minMaxNorm(0, 1, 1))
        .isEqualTo(Constraints.minMaxNorm(0, 1, 1, 0));
    assertThat(Constraints.get("radial_constraint")).isEqualTo(Constraints.radial());
  }

  /** T70: what SGD with rate 0.1 leaves of gamma 2 and beta -0.5, constrained. */
  @Test
  void apply_afterAnUpdate() {
    double[] gamma = {1.9, -1, 2.3};
    double[] beta = {-.4, .1, -.7};
    assertThat(Constraints.get("non_neg").apply(gamma, 3)).containsExactly(1.9, -0.0, 2.3);
    assertThat(Constraints.get("non_neg").apply(beta, 3)).containsExactly(-0.0, .1, -0.0);
    assertThat(Constraints.get("max_norm").apply(gamma, 3))
        .containsExactly(new double[] {1.2077193, -.6356418, 1.4619761}, CLOSE);
    assertThat(Constraints.get("max_norm").apply(beta, 3))
        .containsExactly(new double[] {-.4, .1, -.7}, CLOSE);
    assertThat(Constraints.get("unit_norm").apply(gamma, 3))
        .containsExactly(new double[] {.6038597, -.3178209, .7309880}, CLOSE);
    assertThat(Constraints.get("unit_norm").apply(beta, 3))
        .containsExactly(new double[] {-.4923659, .1230915, -.8616403}, CLOSE);
    assertThat(gamma).as("not changed").containsExactly(1.9, -1, 2.3);
  }

  /** T71. */
  @Test
  void axisZero_ofMultiAxisParametersIsPerElement() {
    double[] weights = {3, -4, 1};
    assertThat(Constraints.get("max_norm").apply(weights, 1, 3, 1, 1))
        .containsExactly(new double[] {2, -2, 1}, CLOSE);
    assertThat(Constraints.get("unit_norm").apply(weights, 1, 3, 1, 1))
        .containsExactly(new double[] {1, -1, 1}, CLOSE);
  }

  @Test
  void epsilon_isKeras() {
    assertThat(Constraints.unitNorm().apply(new double[] {1}, 1)).containsExactly(1 / (1e-7 + 1));
    assertThat(Constraints.maxNorm(2).apply(new double[] {1}, 1)).containsExactly(1 / (1e-7 + 1));
    assertThat(Constraints.unitNorm().apply(new double[] {0, 0}, 2)).containsExactly(0, 0);
    assertThat(Constraints.unitNorm().apply(new double[] {1e-7}, 1)).containsExactly(.5);
  }

  @Test
  void nonNeg_edges() {
    double[] weights = {-2, 2, 0, -0.0, Double.NaN, Double.NEGATIVE_INFINITY, Double.MAX_VALUE};
    assertThat(Constraints.nonNeg().apply(weights, 7))
        .containsExactly(-0.0, 2, 0, -0.0, Double.NaN, Double.NaN, Double.MAX_VALUE);
  }

  @Test
  void maxNorm_edges() {
    assertThat(Constraints.maxNorm(-1).apply(new double[] {3, 4}, 2)).containsExactly(0, 0);
    assertThat(Constraints.maxNorm(1).apply(new double[] {Double.NaN, 1}, 2))
        .containsOnly(Double.NaN);
    assertThat(Constraints.maxNorm(1).apply(new double[0], 0)).isEmpty();
    assertThat(Constraints.maxNorm(1).apply(new double[0], 0, 1L << 40)).isEmpty();
  }

  /** Norm 5: rate 1 goes to the range's end, rate 0.25 a quarter of the way. */
  @ParameterizedTest
  @CsvSource({
    "0,  1, 1,    1",
    "0,  1, 0.25, 4",
    "0,  9, 1,    5",
    "6,  9, 1,    6",
    "6,  9, 0.5,  5.5",
    "6,  2, 1,    6",
    "0,  1, 0,    5"
  })
  void minMaxNorm_norms(double min, double max, double rate, double norm) {
    assertThat(Constraints.minMaxNorm(min, max, rate).apply(new double[] {3, -4}, 2))
        .containsExactly(new double[] {norm * .6, norm * -.8}, CLOSE);
  }

  static Stream<Arguments> axes() {
    double[] byColumn = {
      1 / Math.sqrt(10), 2 / Math.sqrt(20), 3 / Math.sqrt(10), 4 / Math.sqrt(20)
    };
    double[] byRow = {1 / Math.sqrt(5), 2 / Math.sqrt(5), .6, .8};
    double[] byAll = Arrays.stream(new double[] {1, 2, 3, 4}).map(w -> w / Math.sqrt(30)).toArray();
    double[] byNone = {1, 1, 1, 1};
    return Stream.of(
        Arguments.of("0", byColumn),
        Arguments.of("-2", byColumn),
        Arguments.of("1", byRow),
        Arguments.of("[-1]", byRow),
        Arguments.of("[0,1]", byAll),
        Arguments.of("[1,-2]", byAll),
        Arguments.of("null", byAll),
        Arguments.of("[]", byNone));
  }

  @ParameterizedTest
  @MethodSource("axes")
  void axis_ofAMatrix(String axis, double[] expected) {
    Map<String, Object> config = ConfigJson.read("{\"axis\":" + axis + "}");
    Constraint constraint = Constraints.get(Map.of("class_name", "unit_norm", "config", config));
    assertThat(constraint.apply(new double[] {1, 2, 3, 4}, 2, 2)).containsExactly(expected, CLOSE);
    assertThat(Constraints.serialize(constraint)).containsEntry("config", config);
  }

  @Test
  void axis_ofFourDimensions() {
    double[] weights = new double[24];
    Arrays.setAll(weights, i -> i + 1);
    double[] constrained = Constraints.unitNorm(0, 2).apply(weights, 2, 3, 2, 2);
    for (int b = 0; b < 3; b++) {
      for (int d = 0; d < 2; d++) {
        double square = 0;
        for (int a = 0; a < 2; a++) {
          for (int c = 0; c < 2; c++) {
            double weight = constrained[((a * 3 + b) * 2 + c) * 2 + d];
            square += weight * weight;
          }
        }
        assertThat(square).isCloseTo(1, CLOSE);
      }
    }
  }

  @Test
  void axis_errors() {
    double[] weights = {1, 2};
    assertThatThrownBy(() -> Constraints.maxNorm(2, 1).apply(weights, 2))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("axis 1 is outside a parameter of shape [2]");
    assertThatThrownBy(() -> Constraints.unitNorm(-3).apply(weights, 1, 2))
        .hasMessage("axis -3 is outside a parameter of shape [1, 2]");
    assertThatThrownBy(() -> Constraints.minMaxNorm(0, 1, 1, 0, -2).apply(weights, 1, 2))
        .hasMessage("axis [0, -2] names dimension 0 of shape [1, 2] twice");
    assertThatThrownBy(() -> Constraints.unitNorm().apply(new double[] {1}))
        .hasMessage("axis 0 is outside a parameter of shape []");
    assertThatThrownBy(() -> Constraints.unitNorm().apply(weights, 3)).hasMessageContaining("[3]");
    assertThatThrownBy(() -> Constraints.nonNeg().apply(weights, 3)).hasMessageContaining("[3]");
  }

  // ------------------------------------------------------------------------------------------------ radial

  @Test
  void radial_evenSize() {
    assertThat(radial(4))
        .containsExactly(15, 15, 15, 15, 15, 5, 5, 15, 15, 5, 5, 15, 15, 15, 15, 15);
    assertThat(radial(2)).containsExactly(0, 0, 0, 0);
  }

  @Test
  void radial_oddSize() {
    assertThat(radial(3)).containsExactly(4, 4, 4, 4, 0, 4, 4, 4, 4);
    double[] five = radial(5);
    assertThat(five[12]).isEqualTo(6);
    assertThat(List.of(five[6], five[7], five[8], five[18])).containsOnly(12.0);
    assertThat(List.of(five[0], five[4], five[9], five[23])).containsOnly(18.0);
  }

  @Test
  void radial_eachKernelByItself() {
    double[] weights = new double[2 * 2 * 3 * 2];
    Arrays.setAll(weights, i -> i);
    double[] constrained = Constraints.radial().apply(weights, 2, 2, 3, 2);
    for (int i = 0; i < weights.length; i++) {
      assertThat(constrained[i]).isEqualTo(i % 6);
    }
  }

  private static double[] radial(int size) {
    double[] weights = new double[size * size];
    Arrays.setAll(weights, i -> i);
    return Constraints.radial().apply(weights, size, size, 1, 1);
  }

  @Test
  void radial_refusesOtherShapes() {
    assertThatThrownBy(() -> Constraints.radial().apply(new double[3], 3))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("The weight tensor must be of rank 4, but is of shape: [3]");
    assertThatThrownBy(() -> Constraints.radial().apply(new double[15], 1, 3, 1, 5))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("[1, 3, 1, 5]");
    assertThatThrownBy(() -> Constraints.radial().apply(new double[5], 1, 1, 1, 5))
        .hasMessageContaining("[1, 1, 1, 5]");
    assertThat(Constraints.radial().apply(new double[0], 1L << 32, 1L << 32, 0, 1)).isEmpty();
  }

  // ------------------------------------------------------------------------------------------------ configurations

  static Stream<Arguments> configurations() {
    return Stream.of(
        Arguments.of(
            Constraints.get("max_norm"),
            "{\"class_name\":\"MaxNorm\",\"config\":{\"max_value\":2.0,\"axis\":0}}"),
        Arguments.of(
            Constraints.maxNorm(.5, 0, -1),
            "{\"class_name\":\"MaxNorm\",\"config\":{\"max_value\":0.5,\"axis\":[0,-1]}}"),
        Arguments.of(Constraints.nonNeg(), "{\"class_name\":\"NonNeg\",\"config\":{}}"),
        Arguments.of(
            Constraints.unitNorm(), "{\"class_name\":\"UnitNorm\",\"config\":{\"axis\":0}}"),
        Arguments.of(
            Constraints.get("min_max_norm"),
            "{\"class_name\":\"MinMaxNorm\",\"config\":"
                + "{\"min_value\":0.0,\"max_value\":1.0,\"rate\":1.0,\"axis\":0}}"),
        Arguments.of(Constraints.radial(), "{\"class_name\":\"RadialConstraint\",\"config\":{}}"));
  }

  @ParameterizedTest
  @MethodSource("configurations")
  void configuration_roundTrips(Constraint constraint, String json) {
    Map<String, Object> config = Constraints.serialize(constraint);
    assertThat(ConfigJson.write(config)).isEqualTo(json);
    assertThat(ConfigJson.read(json)).isEqualTo(config);
    assertThat(Constraints.get(ConfigJson.read(json))).isEqualTo(constraint);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "MaxNorm | {\"m\":1} | MaxNorm: unknown key \"m\", known are [max_value, axis]",
        "MaxNorm | {\"max_value\":null} | MaxNorm: \"max_value\" must be a number, got null",
        "MaxNorm | {\"axis\":0.0} | MaxNorm: \"axis\" must be an integer, a list of integers or null,"
            + " got 0.0",
        "MaxNorm | {\"axis\":[0,\"1\"]} | MaxNorm: \"axis\" must be an integer, a list of integers or"
            + " null, got \"1\"",
        "NonNeg | {\"axis\":0} | NonNeg: unknown key \"axis\", known are []",
        "bogus | {} | Unknown constraint: bogus"
      })
  void configuration_errors(String name, String config, String message) {
    assertThatThrownBy(
            () -> Constraints.get(Map.of("class_name", name, "config", ConfigJson.read(config))))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(message);
  }

  @Test
  void parameters_mustBeFinite() {
    assertThatThrownBy(() -> Constraints.maxNorm(Double.NaN))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("max_value must be a finite number, got NaN");
    assertThatThrownBy(() -> Constraints.minMaxNorm(0, Double.POSITIVE_INFINITY, 1))
        .hasMessage("max_value must be a finite number, got Infinity");
    assertThatThrownBy(() -> Constraints.minMaxNorm(0, 1, Double.NaN))
        .hasMessage("rate must be a finite number, got NaN");
  }

  @Test
  void get_otherIdentifiers() {
    Constraint own = (weights, shape) -> weights.clone();
    assertThat(Constraints.get(null)).isNull();
    assertThat(Constraints.get(own)).isSameAs(own);
    assertThat(Constraints.serialize(null)).isNull();
    assertThatThrownBy(() -> Constraints.serialize(own))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining(ConstraintsTest.class.getName())
        .hasMessageContaining("cannot be serialized: it is not one of Keras' constraints");
    for (String name : List.of("bogus", "minmaxnorm", "Max_Norm")) {
      assertThatThrownBy(() -> Constraints.get(name)).hasMessage("Unknown constraint: " + name);
    }
    assertThatThrownBy(() -> Constraints.get(List.of()))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("Could not interpret constraint identifier: []");
  }
}
