package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.cli.bench.Operands.Values;
import java.util.List;

/**
 * What the outputs should be, in float64.
 *
 * @param out y, or dx
 * @param dresidual null where there is none
 * @param parameters gradients of gamma and of beta; null but for a backward
 */
record Expected(double[] out, double[] dresidual, List<double[]> parameters) {
  /**
   * Largest difference, in parts of the largest value; NaN where something is not a number.
   *
   * @param gotDresidual only looked at where one is expected
   * @param gotParameters likewise
   */
  double error(Values got, Values gotDresidual, List<double[]> gotParameters) {
    double error = error(out, got);
    if (dresidual != null) {
      error = Math.max(error, error(dresidual, gotDresidual));
    }
    for (int i = 0; parameters != null && i < parameters.size(); i++) {
      double[] values = gotParameters.get(i);
      error = Math.max(error, error(parameters.get(i), c -> values[c]));
    }
    return error;
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
