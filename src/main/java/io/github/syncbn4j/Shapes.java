package io.github.syncbn4j;

import java.util.Arrays;

/** Arithmetic on shapes that never overflows silently. */
final class Shapes {
  private Shapes() {}

  /**
   * Elements of a tensor.
   *
   * @throws IllegalArgumentException for a negative dimension, or more bytes than 2^63 - 1
   */
  static long elements(long[] shape, DType dtype) {
    long elements = 1;
    boolean empty = false;
    for (long dimension : shape) {
      if (dimension < 0) {
        throw new IllegalArgumentException(
            "negative dimension " + dimension + " in shape " + Arrays.toString(shape));
      }
      empty |= dimension == 0;
    }
    if (empty) {
      return 0;
    }
    try {
      for (long dimension : shape) {
        elements = Math.multiplyExact(elements, dimension);
      }
      Math.multiplyExact(elements, dtype.bytes());
    } catch (ArithmeticException e) {
      throw new IllegalArgumentException(
          "shape " + Arrays.toString(shape) + " of " + dtype + " has more than 2^63 - 1 bytes");
    }
    return elements;
  }

  /** Strides, in elements, of a tensor whose last dimension varies fastest. */
  static long[] rowMajorStrides(long[] shape) {
    long[] strides = new long[shape.length];
    long stride = 1;
    for (int i = shape.length - 1; i >= 0; i--) {
      strides[i] = stride;
      stride *= Math.max(shape[i], 1);
    }
    return strides;
  }
}
