package io.github.syncbn4j.nn;

import java.util.Map;

/** Weights scaled down to a norm of at most {@code maxValue}; less than 0 is taken as 0. */
record MaxNorm(double maxValue, Axes axis) implements Constraint, KerasObject {
  static final double MAX_VALUE = 2;

  MaxNorm {
    KerasObject.requireFinite("max_value", maxValue);
  }

  @Override
  public double[] apply(double[] weights, long... shape) {
    double[] norms = axis.norms(weights, shape);
    double[] constrained = new double[weights.length];
    for (int i = 0; i < weights.length; i++) {
      double desired = Constraints.clip(norms[i], 0, maxValue);
      constrained[i] = weights[i] * (desired / (Constraints.EPSILON + norms[i]));
    }
    return constrained;
  }

  @Override
  public String className() {
    return "MaxNorm";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("max_value", maxValue, "axis", axis.config());
  }
}
