package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * Uniform in {@code [minval, maxval)}.
 *
 * @param seed null for a fresh one each time
 */
record RandomUniform(double minval, double maxval, Long seed) implements Initializer, KerasObject {
  static final double MINVAL = -0.05;
  static final double MAXVAL = 0.05;

  RandomUniform {
    KerasObject.requireFinite("minval", minval);
    KerasObject.requireFinite("maxval", maxval);
    KerasObject.requireFinite("maxval - minval", maxval - minval);
  }

  @Override
  public void fill(double[] values, long... shape) {
    ParameterShape.requireFits(values, shape);
    Sampling.uniform(values, minval, maxval, seed);
  }

  @Override
  public String className() {
    return "RandomUniform";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("minval", minval, "maxval", maxval, "seed", seed);
  }
}
