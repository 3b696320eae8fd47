package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * Weights scaled so that their norm moves into a range. A range whose end is before its begin is
 * taken as its begin.
 *
 * @param rate 1 for a norm in the range at once, less for a part of the way
 */
record MinMaxNorm(double minValue, double maxValue, double rate, Axes axis)
    implements Constraint, KerasObject {
  static final double MIN_VALUE = 0;
  static final double MAX_VALUE = 1;
  static final double RATE = 1;

  MinMaxNorm {
    KerasObject.requireFinite("min_value", minValue);
    KerasObject.requireFinite("max_value", maxValue);
    KerasObject.requireFinite("rate", rate);
  }

  @Override
  public double[] apply(double[] weights, long... shape) {
    double[] norms = axis.norms(weights, shape);
    double[] constrained = new double[weights.length];
    for (int i = 0; i < weights.length; i++) {
      double desired =
          rate * Constraints.clip(norms[i], minValue, maxValue) + (1 - rate) * norms[i];
      constrained[i] = weights[i] * (desired / (Constraints.EPSILON + norms[i]));
    }
    return constrained;
  }

  @Override
  public String className() {
    return "MinMaxNorm";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries(
        "min_value", minValue, "max_value", maxValue, "rate", rate, "axis", axis.config());
  }
}
