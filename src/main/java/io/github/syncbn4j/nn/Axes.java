package io.github.syncbn4j.nn;

import java.util.Arrays;
import java.util.List;

/**
 * The dimensions that a norm sums over; negative ones count from the last.
 *
 * @param axes in the order given, or null for all dimensions
 * @param single whether Keras has one number in its configuration, not a list
 */
record Axes(List<Long> axes, boolean single) {
  static final Axes FIRST = one(0);
  static final Axes ALL = new Axes(null, false);

  static Axes one(long axis) {
    return new Axes(List.of(axis), true);
  }

  static Axes list(List<Long> axes) {
    return new Axes(List.copyOf(axes), false);
  }

  static Axes of(int... axes) {
    return axes.length == 1
        ? one(axes[0])
        : list(Arrays.stream(axes).asLongStream().boxed().toList());
  }

  /** Keras' {@code axis}: a number, a list of numbers, or null. */
  Object config() {
    return single ? axes.get(0) : axes;
  }

  /**
   * The norm that each weight belongs to: {@code sqrt(sum(w^2))} over the axes, as many values as
   * weights.
   *
   * @throws IllegalArgumentException for axes that the shape does not have, or has named twice
   */
  double[] norms(double[] weights, long... shape) {
    ParameterShape.requireFits(weights, shape);
    boolean[] summed = summed(shape);
    if (weights.length == 0) {
      return new double[0];
    }
    int[] stride = new int[shape.length];
    int groups = 1;
    for (int d = shape.length - 1; d >= 0; d--) {
      if (!summed[d]) {
        stride[d] = groups;
        groups *= (int) shape[d];
      }
    }
    double[] sums = new double[groups];
    int[] groupOf = new int[weights.length];
    for (int i = 0; i < weights.length; i++) {
      int rest = i;
      for (int d = shape.length - 1; d >= 0; d--) {
        groupOf[i] += rest % (int) shape[d] * stride[d];
        rest /= (int) shape[d];
      }
      sums[groupOf[i]] += weights[i] * weights[i];
    }
    double[] norms = new double[weights.length];
    for (int i = 0; i < weights.length; i++) {
      norms[i] = Math.sqrt(sums[groupOf[i]]);
    }
    return norms;
  }

  private boolean[] summed(long[] shape) {
    boolean[] summed = new boolean[shape.length];
    if (axes == null) {
      Arrays.fill(summed, true);
      return summed;
    }
    for (long axis : axes) {
      long resolved = axis < 0 ? axis + shape.length : axis;
      if (resolved < 0 || resolved >= shape.length) {
        throw new IllegalArgumentException(
            "axis %d is outside a parameter of shape %s".formatted(axis, Arrays.toString(shape)));
      }
      if (summed[(int) resolved]) {
        throw new IllegalArgumentException(
            "axis %s names dimension %d of shape %s twice"
                .formatted(axes, resolved, Arrays.toString(shape)));
      }
      summed[(int) resolved] = true;
    }
    return summed;
  }
}
