package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.cli.bench.Operands.Values;

/**
 * What the outputs should be, in float64.
 *
 * @param out y, or dx
 * @param dresidual null where there is none
 */
record Expected(double[] out, double[] dresidual) {
  /**
   * Largest difference, in parts of the largest value; NaN where something is not a number.
   *
   * @param dresidual only looked at where one is expected
   */
  double error(Values out, Values dresidual) {
    double error = error(this.out, out);
    return this.dresidual == null ? error : Math.max(error, error(this.dresidual, dresidual));
  }

  private static double error(double[] want, Values got) {
    double scale = 0;
    double error = 0;
    for (int i = 0; i < want.length; i++) {
      scale = Math.max(scale, Math.abs(want[i]));
      error = Math.max(error, Math.abs(got.at(i) - want[i])); // Math.max keeps NaN
    }
    return error / scale;
  }
}
