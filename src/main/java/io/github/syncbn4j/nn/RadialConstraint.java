package io.github.syncbn4j.nn;

import java.util.Arrays;
import java.util.Map;

/**
 * Square kernels {@code [size, size, channels, kernels]} whose weights depend on the ring around
 * the centre alone.
 *
 * <p>Which weight of the diagonal a ring takes is what TF 2.4 does, not what its page shows. For an
 * even size each ring takes one of its own. For an odd size the rings are one off: the centre takes
 * that of ring 1, ring 1 that of the centre, ring 2 that of ring 1, and so on.
 */
record RadialConstraint() implements Constraint, KerasObject {
  @Override
  public double[] apply(double[] weights, long... shape) {
    if (shape.length != 4) {
      throw new IllegalArgumentException(
          "The weight tensor must be of rank 4, but is of shape: " + Arrays.toString(shape));
    }
    ParameterShape.requireFits(weights, shape);
    if (shape[0] != shape[1] || shape[0] < 2) {
      throw new IllegalArgumentException(
          "The kernels must be square with at least 2 rows, but the weight tensor is of shape: "
              + Arrays.toString(shape));
    }
    double[] constrained = new double[weights.length];
    if (constrained.length == 0) {
      return constrained;
    }
    int size = (int) shape[0];
    int perPlace = weights.length / (size * size);
    for (int row = 0; row < size; row++) {
      for (int column = 0; column < size; column++) {
        int diagonal = diagonal(size, Math.max(ring(size, row), ring(size, column)));
        System.arraycopy(
            weights,
            diagonal * (size + 1) * perPlace,
            constrained,
            (row * size + column) * perPlace,
            perPlace);
      }
    }
    return constrained;
  }

  /** How far a row is from the middle: 0 for the middle one, or for the middle two. */
  private static int ring(int size, int row) {
    return row >= size / 2 ? row - size / 2 : (size - 1) / 2 - row;
  }

  private static int diagonal(int size, int ring) {
    if (ring == 0) {
      return size / 2 - 1;
    }
    return size / 2 + ring - size % 2;
  }

  @Override
  public String className() {
    return "RadialConstraint";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries();
  }
}
