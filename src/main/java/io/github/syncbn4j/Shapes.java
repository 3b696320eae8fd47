package io.github.syncbn4j;

import io.github.syncbn4j.check.Elements;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Arithmetic on shapes that never overflows silently. */
final class Shapes {
  private Shapes() {}

  /**
   * Elements of a tensor.
   *
   * @throws IllegalArgumentException for a negative dimension, or more bytes than 2^63 - 1
   */
  static long elements(long[] shape, DType dtype) {
    long elements = Elements.of(shape);
    if (elements >= Long.MAX_VALUE / dtype.bytes()) {
      throw new IllegalArgumentException(
          "shape " + Arrays.toString(shape) + " of " + dtype + " has more than 2^63 - 1 bytes");
    }
    return elements;
  }

  static boolean isEmpty(long[] shape) {
    for (long dimension : shape) {
      if (dimension == 0) {
        return true;
      }
    }
    return false;
  }

  /** Whether the elements lie without gaps, the last dimension fastest. */
  static boolean isRowMajor(long[] shape, long[] strides) {
    return isEmpty(shape) || areSameStrides(shape, strides, rowMajorStrides(shape));
  }

  /** Whether every element has the same place: the stride of a dimension of one does not matter. */
  static boolean areSameStrides(long[] shape, long[] strides, long[] others) {
    for (int i = 0; i < shape.length; i++) {
      if (shape[i] != 1 && strides[i] != others[i]) {
        return false;
      }
    }
    return true;
  }

  /** Whether two indices of such a tensor may name one element. */
  static boolean mayOverlap(long[] shape, long[] strides) {
    if (isEmpty(shape)) {
      return false;
    }
    long reach = 0; // the largest offset of the dimensions so far
    for (int i : fastestFirst(shape, strides)) {
      if (strides[i] <= reach) {
        return true;
      }
      reach += (shape[i] - 1) * strides[i];
    }
    return false;
  }

  /** Whether the elements lie without gaps, in any order of dimensions. */
  static boolean isDense(long[] shape, long[] strides) {
    if (isEmpty(shape)) {
      return true;
    }
    long expected = 1;
    for (int i : fastestFirst(shape, strides)) {
      if (strides[i] != expected) {
        return false;
      }
      expected *= shape[i];
    }
    return true;
  }

  /** The dimensions of more than one element, by their strides. */
  static int[] fastestFirst(long[] shape, long[] strides) {
    return IntStream.range(0, shape.length)
        .filter(i -> shape[i] != 1)
        .boxed()
        .sorted(Comparator.comparing((Integer i) -> strides[i]).thenComparing(i -> -i))
        .mapToInt(i -> i)
        .toArray();
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
