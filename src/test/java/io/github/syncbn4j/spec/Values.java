package io.github.syncbn4j.spec;

import java.util.Arrays;
import java.util.function.IntToDoubleFunction;

/** A tensor's numbers, row-major, however its memory lies on a device. */
record Values(double[] data, long... shape) {
  Values {
    if (data.length != elements(shape)) {
      throw new IllegalArgumentException(
          data.length + " numbers for shape " + Arrays.toString(shape));
    }
  }

  /** A tensor whose element {@code k} is {@code value(k)}. */
  static Values of(IntToDoubleFunction value, long... shape) {
    double[] data = new double[elements(shape)];
    Arrays.setAll(data, value);
    return new Values(data, shape);
  }

  /** The specification's input generator {@code G(shape, t)}. */
  static Values g(int t, long... shape) {
    return of(k -> (7 * k + 5 * t) % 11 / 11.0, shape);
  }

  /** The specification's upstream gradient {@code W(shape)}. */
  static Values w(long... shape) {
    return of(Math::cos, shape);
  }

  /** The part of the first dimension from {@code from} to {@code to}, exclusive. */
  Values rows(int from, int to) {
    int row = elements(Arrays.copyOfRange(shape, 1, shape.length));
    long[] part = shape.clone();
    part[0] = to - from;
    return new Values(Arrays.copyOfRange(data, from * row, to * row), part);
  }

  Values times(double factor) {
    return of(k -> data[k] * factor, shape);
  }

  static int elements(long... shape) {
    return Math.toIntExact(Arrays.stream(shape).reduce(1, Math::multiplyExact));
  }
}
