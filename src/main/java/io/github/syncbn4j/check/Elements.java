package io.github.syncbn4j.check;

import java.util.Arrays;

/** How many elements a shape has. */
public final class Elements {
  private Elements() {}

  /**
   * The product of the dimensions, 1 if there are none; {@link Long#MAX_VALUE} where it is that or
   * more, so that whoever has a limit compares, and nothing overflows.
   *
   * @throws IllegalArgumentException for a negative dimension
   */
  public static long of(long... shape) {
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
    long elements = 1;
    for (long dimension : shape) {
      if (dimension > Long.MAX_VALUE / elements) {
        return Long.MAX_VALUE;
      }
      elements *= dimension;
    }
    return elements;
  }
}
