package io.github.syncbn4j.cli;

/**
 * How far a value may be from the one expected: {@code |got - want| <= atol + rtol * |want|}.
 *
 * @param rtol finite, at least 0
 * @param atol finite, at least 0
 */
record Tolerance(double rtol, double atol) {
  /**
   * The error as a fraction of what is allowed: up to 1 is within tolerance.
   *
   * <p>A NaN matches only a NaN and an infinity only itself; everything else is infinitely wrong.
   *
   * @param magnitude stands for {@code |want|} in what is allowed; finite where {@code want} is
   */
  double fraction(double got, double want, double magnitude) {
    if (Double.compare(got, want) == 0 || got == want) {
      return 0;
    }
    double error = Math.abs(got - want);
    if (Double.isNaN(error) || Double.isInfinite(error)) {
      return Double.POSITIVE_INFINITY;
    }
    return error / (atol + rtol * magnitude);
  }
}
