package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ToleranceTest {
  @ParameterizedTest
  @CsvSource({
    "1.0, 1.0, 1.0, 0",
    "1.5, 1.0, 1.0, 1",
    "0.5, 1.0, 1.0, 1",
    "-1.0, 1.0, 1.0, 4",
    "1.5, 1.0, 3.0, 0.5",
    "0.25, 0, 0, 1",
    "0, -0.0, 0, 0",
    "NaN, NaN, 0, 0",
    "NaN, 1, 1, Infinity",
    "1, NaN, 0, Infinity",
    "Infinity, Infinity, 0, 0",
    "-Infinity, Infinity, 0, Infinity",
    "1, Infinity, 0, Infinity",
    "Infinity, 1, 1, Infinity",
    "NaN, Infinity, 0, Infinity"
  })
  void fraction(double got, double want, double magnitude, double fraction) {
    assertThat(new Tolerance(0.25, 0.25).fraction(got, want, magnitude)).isEqualTo(fraction);
  }

  @ParameterizedTest
  @CsvSource({"1, 1, 0", "1.0000001, 1, Infinity"})
  void fraction_whereNothingIsAllowed(double got, double want, double fraction) {
    assertThat(new Tolerance(0, 0).fraction(got, want, 1)).isEqualTo(fraction);
  }
}
