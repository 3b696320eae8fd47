package io.github.syncbn4j.nn;

import io.github.syncbn4j.check.Shown;
import java.util.Arrays;
import java.util.Map;

/**
 * {@code factor} times the mean of |cosine| over all pairs of rows, or of columns. A matrix of one
 * row has no pair, and the penalty 0 (Keras: NaN).
 *
 * @param factor rounded to float32
 * @param mode {@code rows} or {@code columns}
 */
record OrthogonalRegularizer(double factor, String mode) implements Regularizer, KerasObject {
  static final double FACTOR = 0.01;
  static final String ROWS = "rows";
  static final String COLUMNS = "columns";

  /** The least squared norm that a vector is divided by. */
  private static final double LEAST_SQUARE = 1e-12;

  OrthogonalRegularizer {
    factor = Regularizers.factor("factor", factor);
    if (!mode.equals(ROWS) && !mode.equals(COLUMNS)) {
      throw new IllegalArgumentException(
          "Invalid value for argument `mode`. Expected one of {\"rows\", \"columns\"}. Received: "
              + "mode="
              + Shown.plain(mode));
    }
  }

  @Override
  public double loss(double[] weights, long... shape) {
    double[][] units = units(vectors(weights, shape));
    double sum = 0;
    for (int a = 0; a < units.length; a++) {
      for (int b = 0; b < a; b++) {
        sum += Math.abs(Orthogonal.dot(units[a], units[b]));
      }
    }
    return sum == 0 ? 0 : factor * sum / pairs(units);
  }

  @Override
  public double[] gradient(double[] weights, long... shape) {
    double[][] vectors = vectors(weights, shape);
    double[][] units = units(vectors);
    double[] gradient = new double[weights.length];
    if (units.length < 2) {
      return gradient;
    }
    double perPair = factor / pairs(units);
    for (int a = 0; a < units.length; a++) {
      double[] byUnit = new double[units[a].length];
      for (int b = 0; b < units.length; b++) {
        double sign = b == a ? 0 : Math.signum(Orthogonal.dot(units[a], units[b]));
        for (int i = 0; i < byUnit.length; i++) {
          byUnit[i] += perPair * sign * units[b][i];
        }
      }
      double square = Orthogonal.dot(vectors[a], vectors[a]);
      // A vector too short to be normalized is only multiplied by a constant.
      double along = square < LEAST_SQUARE ? 0 : Orthogonal.dot(byUnit, units[a]);
      double norm = Math.sqrt(Math.max(square, LEAST_SQUARE));
      for (int i = 0; i < byUnit.length; i++) {
        int at = mode.equals(ROWS) ? a * byUnit.length + i : i * units.length + a;
        gradient[at] = (byUnit[i] - along * units[a][i]) / norm;
      }
    }
    return gradient;
  }

  private double[][] vectors(double[] weights, long[] shape) {
    if (shape.length != 2) {
      throw new IllegalArgumentException(
          "Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape == "
              + Arrays.toString(shape));
    }
    ParameterShape.requireFits(weights, shape);
    if (weights.length == 0) {
      return new double[0][];
    }
    int rows = (int) shape[0];
    int columns = (int) shape[1];
    boolean byRow = mode.equals(ROWS);
    double[][] vectors = new double[byRow ? rows : columns][byRow ? columns : rows];
    for (int i = 0; i < weights.length; i++) {
      int row = i / columns;
      int column = i % columns;
      vectors[byRow ? row : column][byRow ? column : row] = weights[i];
    }
    return vectors;
  }

  private static double[][] units(double[][] vectors) {
    double[][] units = new double[vectors.length][];
    for (int v = 0; v < vectors.length; v++) {
      double norm = Math.sqrt(Math.max(Orthogonal.dot(vectors[v], vectors[v]), LEAST_SQUARE));
      units[v] = Arrays.stream(vectors[v]).map(value -> value / norm).toArray();
    }
    return units;
  }

  private static double pairs(double[][] vectors) {
    return vectors.length * (vectors.length - 1.0) / 2;
  }

  @Override
  public String className() {
    return "OrthogonalRegularizer";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("factor", factor, "mode", mode);
  }
}
