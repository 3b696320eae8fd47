package io.github.syncbn4j.nn;

import java.util.Arrays;
import java.util.Map;

/**
 * A random matrix with orthonormal rows or columns, whichever are fewer, times {@code gain}. All
 * dimensions but the last make the rows.
 *
 * @param seed null for a fresh one each time
 */
record Orthogonal(double gain, Long seed) implements Initializer, KerasObject {
  static final double GAIN = 1;

  Orthogonal {
    KerasObject.requireFinite("gain", gain);
  }

  @Override
  public void fill(double[] values, long... shape) {
    if (shape.length < 2) {
      throw new IllegalArgumentException(
          "The tensor to initialize must be at least two-dimensional, got shape "
              + Arrays.toString(shape));
    }
    ParameterShape.requireFits(values, shape);
    if (values.length == 0) {
      return;
    }
    int columns = (int) shape[shape.length - 1];
    int rows = values.length / columns;
    int count = Math.min(rows, columns);
    int length = Math.max(rows, columns);
    double[] random = new double[values.length];
    Sampling.normal(random, 0, 1, seed);
    double[][] vectors = new double[count][];
    for (int v = 0; v < count; v++) {
      vectors[v] = Arrays.copyOfRange(random, v * length, (v + 1) * length);
      orthonormalize(vectors, v);
    }
    for (int v = 0; v < count; v++) {
      for (int i = 0; i < length; i++) {
        values[rows < columns ? v * columns + i : i * columns + v] = gain * vectors[v][i];
      }
    }
  }

  /**
   * Gram and Schmidt's step for one vector against those before it; the second round takes out what
   * rounding left. The implied triangular factor has a positive diagonal, so the matrix is uniform
   * over all orthogonal ones without a change of signs.
   */
  private static void orthonormalize(double[][] vectors, int which) {
    double[] vector = vectors[which];
    for (int round = 0; round < 2; round++) {
      for (int before = 0; before < which; before++) {
        double along = dot(vector, vectors[before]);
        for (int i = 0; i < vector.length; i++) {
          vector[i] -= along * vectors[before][i];
        }
      }
      double norm = Math.sqrt(dot(vector, vector));
      for (int i = 0; i < vector.length; i++) {
        vector[i] /= norm;
      }
    }
  }

  static double dot(double[] a, double[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }

  @Override
  public String className() {
    return "Orthogonal";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("gain", gain, "seed", seed);
  }
}
