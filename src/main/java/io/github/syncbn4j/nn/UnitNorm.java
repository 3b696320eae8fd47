package io.github.syncbn4j.nn;

import java.util.Map;

/** Weights divided by their norm. */
record UnitNorm(Axes axis) implements Constraint, KerasObject {
  @Override
  public double[] apply(double[] weights, long... shape) {
    double[] norms = axis.norms(weights, shape);
    double[] constrained = new double[weights.length];
    for (int i = 0; i < weights.length; i++) {
      constrained[i] = weights[i] / (Constraints.EPSILON + norms[i]);
    }
    return constrained;
  }

  @Override
  public String className() {
    return "UnitNorm";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("axis", axis.config());
  }
}
