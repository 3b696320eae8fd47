package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * {@code w * (w >= 0)}: a negative weight becomes -0.0, as in Keras; NaN and the negative infinity
 * become NaN.
 */
record NonNeg() implements Constraint, KerasObject {
  @Override
  public double[] apply(double[] weights, long... shape) {
    ParameterShape.requireFits(weights, shape);
    double[] constrained = new double[weights.length];
    for (int i = 0; i < weights.length; i++) {
      constrained[i] = weights[i] * (weights[i] >= 0 ? 1 : 0);
    }
    return constrained;
  }

  @Override
  public String className() {
    return "NonNeg";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries();
  }
}
