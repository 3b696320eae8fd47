package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * {@code l1 * sum|w| + l2 * sum w^2}: Keras' {@code L1}, {@code L2} and {@code L1L2}.
 *
 * <p>The factors are rounded to float32, as Keras does whatever the weights' type.
 */
record L1L2(String className, double l1, double l2) implements Regularizer, KerasObject {
  private static final String L1 = "L1";
  private static final String L2 = "L2";

  L1L2 {
    l1 = Regularizers.factor("l1", l1);
    l2 = Regularizers.factor("l2", l2);
  }

  static L1L2 l1(double factor) {
    return new L1L2(L1, factor, 0);
  }

  static L1L2 l2(double factor) {
    return new L1L2(L2, 0, factor);
  }

  static L1L2 both(double l1, double l2) {
    return new L1L2("L1L2", l1, l2);
  }

  @Override
  public double loss(double[] weights, long... shape) {
    ParameterShape.requireFits(weights, shape);
    double magnitudes = 0;
    double squares = 0;
    for (double weight : weights) {
      magnitudes += Math.abs(weight);
      squares += weight * weight;
    }
    // A factor of 0 counts for nothing, even where the sum is infinite.
    return (l1 == 0 ? 0 : l1 * magnitudes) + (l2 == 0 ? 0 : l2 * squares);
  }

  @Override
  public double[] gradient(double[] weights, long... shape) {
    ParameterShape.requireFits(weights, shape);
    double[] gradient = new double[weights.length];
    for (int i = 0; i < weights.length; i++) {
      gradient[i] =
          (l1 == 0 ? 0 : l1 * Math.signum(weights[i])) + (l2 == 0 ? 0 : 2 * l2 * weights[i]);
    }
    return gradient;
  }

  @Override
  public Map<String, Object> config() {
    return switch (className) {
      case L1 -> KerasObject.entries("l1", l1);
      case L2 -> KerasObject.entries("l2", l2);
      default -> KerasObject.entries("l1", l1, "l2", l2);
    };
  }
}
