package io.github.syncbn4j.nn;

import io.github.syncbn4j.check.Elements;
import java.util.Arrays;

/** Parameters are arrays: what their shapes may be. */
final class ParameterShape {
  /** Some virtual machines keep a few words of an array for themselves. */
  private static final int MAX_ELEMENTS = Integer.MAX_VALUE - 8;

  private ParameterShape() {}

  /**
   * @throws IllegalArgumentException for a negative dimension, or more elements than an array has
   */
  static int elements(long... shape) {
    long elements = Elements.of(shape);
    if (elements > MAX_ELEMENTS) {
      throw new IllegalArgumentException(
          "a parameter of shape %s has more than %d elements, the limit"
              .formatted(Arrays.toString(shape), MAX_ELEMENTS));
    }
    return (int) elements;
  }

  /**
   * @throws IllegalArgumentException unless there are as many values as the shape has elements
   */
  static void requireFits(double[] values, long... shape) {
    int elements = elements(shape);
    if (values.length != elements) {
      throw new IllegalArgumentException(
          "%d values, but shape %s has %d elements"
              .formatted(values.length, Arrays.toString(shape), elements));
    }
  }
}
