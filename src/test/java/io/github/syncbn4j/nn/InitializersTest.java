package io.github.syncbn4j.nn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.DoublePredicate;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Keras' initializers: names, values and seeds. */
class InitializersTest {
  private static final int MANY = 200_000;

  /** Keras' class and every name that it has (TF 2.4, keras/initializers/__init__.py). */
  static Stream<Arguments> names() {
    Map<String, List<String>> names =
        Map.ofEntries(
            Map.entry("Zeros", List.of("zeros", "zero")),
            Map.entry("Ones", List.of("ones", "one")),
            Map.entry("Constant", List.of("constant")),
            Map.entry("RandomUniform", List.of("random_uniform", "uniform")),
            Map.entry("RandomNormal", List.of("random_normal", "normal")),
            Map.entry("TruncatedNormal", List.of("truncated_normal")),
            Map.entry("VarianceScaling", List.of("variance_scaling")),
            Map.entry("GlorotUniform", List.of("glorot_uniform", "glorot_uniformV2")),
            Map.entry("GlorotNormal", List.of("glorot_normal", "glorot_normalV2")),
            Map.entry("LecunUniform", List.of("lecun_uniform", "lecun_uniformV2")),
            Map.entry("LecunNormal", List.of("lecun_normal", "lecun_normalV2")),
            Map.entry("HeUniform", List.of("he_uniform", "he_uniformV2")),
            Map.entry("HeNormal", List.of("he_normal", "he_normalV2")),
            Map.entry("Orthogonal", List.of("orthogonal")),
            Map.entry("Identity", List.of("identity")));
    return names.entrySet().stream()
        .flatMap(
            entry -> {
              List<String> all = new ArrayList<>(entry.getValue());
              all.add(entry.getKey());
              all.add(entry.getKey() + "V2");
              return all.stream().map(name -> Arguments.of(entry.getKey(), name));
            });
  }

  @ParameterizedTest
  @MethodSource("names")
  void get_everyNameOfKeras(String className, String name) {
    Initializer initializer = Initializers.get(name);
    assertThat(Initializers.serialize(initializer)).containsEntry("class_name", className);
    assertThat(initializer).isEqualTo(Initializers.get(className));
    assertThat(Initializers.get(Map.of("class_name", name, "config", Map.of())))
        .isEqualTo(initializer);
  }

  @Test
  void get_defaults() {
    assertThat(Initializers.get("zeros")).isEqualTo(Initializers.zeros());
    assertThat(Initializers.get("ones")).isEqualTo(Initializers.ones());
    assertThat(Initializers.get("constant")).isEqualTo(Initializers.constant(0));
    assertThat(Initializers.get("uniform"))
        .isEqualTo(Initializers.randomUniform())
        .isEqualTo(Initializers.randomUniform(-0.05, 0.05));
    assertThat(Initializers.get("normal"))
        .isEqualTo(Initializers.randomNormal())
        .isEqualTo(Initializers.randomNormal(0, 0.05));
    assertThat(Initializers.get("truncated_normal"))
        .isEqualTo(Initializers.truncatedNormal())
        .isEqualTo(Initializers.truncatedNormal(0, 0.05));
    assertThat(Initializers.get("variance_scaling"))
        .isEqualTo(Initializers.varianceScaling(1, "fan_in", "truncated_normal"))
        .isEqualTo(Initializers.varianceScaling(1, "fan_in", "normal"));
    assertThat(Initializers.get("glorot_uniform")).isEqualTo(Initializers.glorotUniform());
    assertThat(Initializers.get("glorot_normal")).isEqualTo(Initializers.glorotNormal());
    assertThat(Initializers.get("lecun_uniform")).isEqualTo(Initializers.lecunUniform());
    assertThat(Initializers.get("lecun_normal")).isEqualTo(Initializers.lecunNormal());
    assertThat(Initializers.get("he_uniform")).isEqualTo(Initializers.heUniform());
    assertThat(Initializers.get("he_normal")).isEqualTo(Initializers.heNormal());
    assertThat(Initializers.get("orthogonal")).isEqualTo(Initializers.orthogonal(1));
    assertThat(Initializers.get("identity")).isEqualTo(Initializers.identity(1));
  }

  @Test
  void get_nullAndObjects() {
    Initializer own = (values, shape) -> Arrays.fill(values, 7);
    assertThat(Initializers.get(null)).isNull();
    assertThat(Initializers.get(own)).isSameAs(own);
    assertThat(own.values(2, 2)).containsExactly(7, 7, 7, 7);
  }

  @ParameterizedTest
  @ValueSource(strings = {"bogus", "ZEROS", "Zero", "", "zeros ", "random_normalV2"})
  void get_unknownName(String name) {
    assertThatThrownBy(() -> Initializers.get(name))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("Unknown initializer: " + name);
  }

  @Test
  void get_otherIdentifier() {
    assertThatThrownBy(() -> Initializers.get(3))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("Could not interpret initializer identifier: 3");
  }

  // ------------------------------------------------------------------------------------------------ values

  @Test
  void constants() {
    assertThat(Initializers.zeros().values(3)).containsExactly(0, 0, 0);
    assertThat(Initializers.ones().values(1, 2)).containsExactly(1, 1);
    assertThat(Initializers.constant(-2.5).values(1, 2, 1)).containsExactly(-2.5, -2.5);
    assertThat(Initializers.ones().values()).as("rank 0").containsExactly(1);
    assertThat(Initializers.ones().values(2, 0)).isEmpty();
    double[] used = {5, 5};
    Initializers.zeros().fill(used, 2);
    assertThat(used).containsExactly(0, 0);
  }

  @Test
  void randomUniform_rangeAndMoments() {
    double[] values = Initializers.randomUniform(2, 6, 11).values(MANY);
    assertAll(values, value -> value >= 2 && value < 6);
    assertMoments(values, 4, 4 / Math.sqrt(12));
    assertThat(Initializers.randomUniform(3, 3).values(4)).containsExactly(3, 3, 3, 3);
  }

  @Test
  void randomUniform_neverTheEndOfTheRange() {
    double next = Math.nextUp(1.0);
    assertThat(Initializers.randomUniform(1, next).values(1000)).containsOnly(1);
  }

  @Test
  void randomNormal_moments() {
    double[] values = Initializers.randomNormal(-3, 2, 12).values(MANY);
    assertMoments(values, -3, 2);
    assertThat(share(values, value -> Math.abs(value + 3) > 4)).isCloseTo(0.0455, within(0.003));
  }

  @Test
  void truncatedNormal_rangeAndMoments() {
    double[] values = Initializers.truncatedNormal(1, 0.5, 13).values(MANY);
    assertAll(values, value -> Math.abs(value - 1) <= 1);
    assertMoments(values, 1, 0.5 * 0.87962566103423978);
    assertThat(share(values, value -> Math.abs(value - 1) > 0.9)).isGreaterThan(0.01);
  }

  /** Limits of uniform ones, of a parameter [50] and of one [1, 3, 1, 5]. */
  @ParameterizedTest
  @CsvSource({
    "glorot_uniform, 0.244948974, 0.577350269",
    "lecun_uniform,  0.244948974, 1.0",
    "he_uniform,     0.346410162, 1.414213562"
  })
  void uniform_limitsByShape(String name, double ofVector, double ofMultiAxis) {
    assertReaches(ofVector, () -> Initializers.get(name).values(50));
    assertReaches(ofMultiAxis, () -> Initializers.get(name).values(1, 3, 1, 5));
  }

  /** Standard deviations after truncation; nothing beyond two before it. */
  @ParameterizedTest
  @CsvSource({
    "glorot_normal, 0.141421356, 0.333333333",
    "lecun_normal,  0.141421356, 0.577350269",
    "he_normal,     0.2,         0.816496581"
  })
  void normal_stddevByShape(String name, double ofVector, double ofMultiAxis) {
    assertTruncated(ofVector, () -> Initializers.get(name).values(50));
    assertTruncated(ofMultiAxis, () -> Initializers.get(name).values(1, 3, 1, 5));
  }

  @Test
  void varianceScaling_modes() {
    assertReaches(2, () -> Initializers.varianceScaling(4, "fan_in", "uniform").values(1, 3, 1, 5));
    assertReaches(
        0.894427191,
        () -> Initializers.varianceScaling(4, "fan_out", "uniform").values(1, 3, 1, 5));
    assertReaches(
        1.154700538,
        () -> Initializers.varianceScaling(4, "fan_avg", "UNIFORM").values(1, 3, 1, 5));
    double[] normal =
        Initializers.varianceScaling(9, "fan_in", "untruncated_normal", 3).values(4, MANY);
    assertMoments(normal, 0, 1.5);
    assertThat(share(normal, value -> Math.abs(value) > 3)).isCloseTo(0.0455, within(0.003));
  }

  @Test
  void fans() {
    assertThat(Fans.of()).isEqualTo(new Fans(1, 1));
    assertThat(Fans.of(7)).isEqualTo(new Fans(7, 7));
    assertThat(Fans.of(2, 3)).isEqualTo(new Fans(2, 3));
    assertThat(Fans.of(1, 3, 1, 5)).isEqualTo(new Fans(3, 15));
    assertThat(Fans.of(2, 3, 4, 5, 6)).isEqualTo(new Fans(120, 144));
    assertReaches(Math.sqrt(3), () -> Initializers.lecunUniform().values());
  }

  @ParameterizedTest
  @CsvSource({"4, 4", "3, 7", "7, 3", "1, 5"})
  void orthogonal_rowsOrColumns(int rows, int columns) {
    double[] matrix = Initializers.orthogonal(2, 5).values(rows, columns);
    assertOrthogonal(matrix, rows, columns, 4);
  }

  @Test
  void orthogonal_moreDimensions() {
    assertOrthogonal(Initializers.get("orthogonal").values(1, 4, 2, 5), 8, 5, 1);
    assertThat(Initializers.orthogonal(1).values(3, 0)).isEmpty();
  }

  @Test
  void orthogonal_isUniform() {
    double[] first = new double[4000];
    for (int i = 0; i < first.length; i++) {
      first[i] = Initializers.orthogonal(1, i).values(3, 3)[0];
    }
    // An entry of a uniform orthogonal 3 x 3 matrix is uniform in [-1, 1].
    assertThat(mean(first)).isCloseTo(0, within(0.04));
    assertThat(stddev(first)).isCloseTo(Math.sqrt(1.0 / 3), within(0.02));
  }

  @Test
  void identity_values() {
    assertThat(Initializers.identity(2).values(2, 3)).containsExactly(2, 0, 0, 0, 2, 0);
    assertThat(Initializers.get("identity").values(3, 2)).containsExactly(1, 0, 0, 1, 0, 0);
  }

  /** T73. */
  @Test
  void matrices_refuseOtherRanks() {
    assertThatThrownBy(() -> Initializers.get("orthogonal").values(3))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("The tensor to initialize must be at least two-dimensional, got shape [3]");
    assertThatThrownBy(() -> Initializers.get("identity").values(3))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("Identity matrix initializer can only be used for 2D matrices, got shape [3]");
    assertThatThrownBy(() -> Initializers.get("identity").values(1, 2, 3))
        .hasMessageContaining("[1, 2, 3]");
    assertThatThrownBy(() -> Initializers.get("orthogonal").values()).hasMessageContaining("[]");
  }

  @Test
  void fill_refusesOtherNumberOfValues() {
    for (String name : List.of("zeros", "uniform", "normal", "glorot_uniform")) {
      assertThatThrownBy(() -> Initializers.get(name).fill(new double[3], 2, 2))
          .as(name)
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage("3 values, but shape [2, 2] has 4 elements");
    }
    assertThatThrownBy(() -> Initializers.identity(1).fill(new double[3], 2, 2))
        .hasMessageContaining("[2, 2]");
    assertThatThrownBy(() -> Initializers.orthogonal(1).fill(new double[3], 2, 2))
        .hasMessageContaining("[2, 2]");
  }

  @Test
  void values_refusesImpossibleShapes() {
    assertThatThrownBy(() -> Initializers.zeros().values(2, -1))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("negative dimension -1 in shape [2, -1]");
    assertThatThrownBy(() -> Initializers.zeros().values(1L << 40, 1L << 40))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("1099511627776");
    assertThat(Initializers.zeros().values(1L << 62, 0, 1L << 62)).isEmpty();
  }

  // ------------------------------------------------------------------------------------------------ seeds

  static Stream<Arguments> random() {
    return names()
        .map(arguments -> (String) arguments.get()[0])
        .distinct()
        .filter(name -> !List.of("Zeros", "Ones", "Constant", "Identity").contains(name))
        .map(Arguments::of);
  }

  @ParameterizedTest
  @MethodSource("random")
  void seed_decidesTheValues(String name) {
    long[] shape = {4, 6};
    Initializer seeded = seeded(name, 42);
    assertThat(seeded.values(shape))
        .isEqualTo(seeded.values(shape))
        .isEqualTo(seeded(name, 42).values(shape))
        .isNotEqualTo(seeded(name, 43).values(shape))
        .isNotEqualTo(seeded(name, -42).values(shape));
  }

  @ParameterizedTest
  @MethodSource("random")
  void noSeed_givesOtherValuesEachTime(String name) {
    Initializer fresh = Initializers.get(name);
    assertThat(fresh.values(4, 6)).isNotEqualTo(fresh.values(4, 6));
    assertThat(fresh.values(4, 6)).isNotEqualTo(Initializers.get(name).values(4, 6));
  }

  @Test
  void seed_ofFactories() {
    assertThat(Initializers.randomUniform(-0.05, 0.05, 9)).isEqualTo(seeded("RandomUniform", 9));
    assertThat(Initializers.randomNormal(0, 0.05, 9)).isEqualTo(seeded("RandomNormal", 9));
    assertThat(Initializers.truncatedNormal(0, 0.05, 9)).isEqualTo(seeded("TruncatedNormal", 9));
    assertThat(Initializers.varianceScaling(1, "fan_in", "normal", 9))
        .isEqualTo(seeded("VarianceScaling", 9));
    assertThat(Initializers.glorotUniform(9)).isEqualTo(seeded("GlorotUniform", 9));
    assertThat(Initializers.glorotNormal(9)).isEqualTo(seeded("GlorotNormal", 9));
    assertThat(Initializers.lecunUniform(9)).isEqualTo(seeded("LecunUniform", 9));
    assertThat(Initializers.lecunNormal(9)).isEqualTo(seeded("LecunNormal", 9));
    assertThat(Initializers.heUniform(9)).isEqualTo(seeded("HeUniform", 9));
    assertThat(Initializers.heNormal(9)).isEqualTo(seeded("HeNormal", 9));
    assertThat(Initializers.orthogonal(1, 9)).isEqualTo(seeded("Orthogonal", 9));
  }

  private static Initializer seeded(String name, long seed) {
    return Initializers.get(Map.of("class_name", name, "config", Map.of("seed", seed)));
  }

  // ------------------------------------------------------------------------------------------------ measures

  /** T72: within the limit, and close to it, whatever the seed. */
  private static void assertReaches(double limit, Supplier<double[]> draw) {
    double[] drawn = drawMany(draw);
    assertAll(drawn, value -> value >= -limit - 1e-9 && value < limit + 1e-9);
    assertThat(Arrays.stream(drawn).max().orElseThrow()).isGreaterThan(0.99 * limit);
    assertThat(Arrays.stream(drawn).min().orElseThrow()).isLessThan(-0.99 * limit);
    assertThat(mean(drawn)).isCloseTo(0, within(0.03 * limit));
  }

  private static void assertTruncated(double stddev, Supplier<double[]> draw) {
    double[] drawn = drawMany(draw);
    double cut = 2 * stddev / 0.87962566103423978 + 1e-9;
    assertAll(drawn, value -> Math.abs(value) <= cut);
    assertThat(mean(drawn)).isCloseTo(0, within(0.03 * stddev));
    assertThat(stddev(drawn)).isCloseTo(stddev, within(0.03 * stddev));
  }

  private static double[] drawMany(Supplier<double[]> draw) {
    return Stream.generate(draw)
        .limit(20_000)
        .flatMapToDouble(Arrays::stream)
        .limit(MANY)
        .toArray();
  }

  private static void assertAll(double[] values, DoublePredicate wanted) {
    assertThat(Arrays.stream(values).filter(wanted.negate())).isEmpty();
  }

  private static void assertMoments(double[] values, double mean, double stddev) {
    assertThat(mean(values)).isCloseTo(mean, within(0.01 * stddev));
    assertThat(stddev(values)).isCloseTo(stddev, within(0.01 * stddev));
  }

  private static double mean(double[] values) {
    return Arrays.stream(values).average().orElseThrow();
  }

  private static double stddev(double[] values) {
    double mean = mean(values);
    return Math.sqrt(
        Arrays.stream(values)
            .map(value -> (value - mean) * (value - mean))
            .average()
            .orElseThrow());
  }

  private static double share(double[] values, DoublePredicate of) {
    return (double) Arrays.stream(values).filter(of).count() / values.length;
  }

  private static void assertOrthogonal(double[] matrix, int rows, int columns, double square) {
    boolean byRow = rows < columns;
    int vectors = Math.min(rows, columns);
    int length = Math.max(rows, columns);
    for (int a = 0; a < vectors; a++) {
      for (int b = 0; b <= a; b++) {
        double dot = 0;
        for (int i = 0; i < length; i++) {
          dot +=
              matrix[byRow ? a * columns + i : i * columns + a]
                  * matrix[byRow ? b * columns + i : i * columns + b];
        }
        assertThat(dot).isCloseTo(a == b ? square : 0, within(1e-13));
      }
    }
  }
}
