package io.github.syncbn4j.nn;

/**
 * Keras' idea of how many inputs and outputs a weight of some shape connects.
 *
 * <p>Rank 0: 1 and 1. Rank 1: {@code C} and {@code C}. Else the last two dimensions, each times the
 * product of those before: {@code [1, 3, 1, 5]} has 3 and 15.
 */
record Fans(double in, double out) {
  static Fans of(long... shape) {
    if (shape.length == 0) {
      return new Fans(1, 1);
    }
    double last = shape[shape.length - 1];
    if (shape.length == 1) {
      return new Fans(last, last);
    }
    double receptive = 1;
    for (int d = 0; d < shape.length - 2; d++) {
      receptive *= shape[d];
    }
    return new Fans(shape[shape.length - 2] * receptive, last * receptive);
  }
}
