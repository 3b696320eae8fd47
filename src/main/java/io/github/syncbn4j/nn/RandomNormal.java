package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * Normal, or normal without what lies beyond two standard deviations: Keras' {@code RandomNormal}
 * and {@code TruncatedNormal}.
 *
 * @param stddev before truncation
 * @param seed null for a fresh one each time
 */
record RandomNormal(boolean truncated, double mean, double stddev, Long seed)
    implements Initializer, KerasObject {
  static final double MEAN = 0;
  static final double STDDEV = 0.05;

  RandomNormal {
    KerasObject.requireFinite("mean", mean);
    KerasObject.requireFinite("stddev", stddev);
  }

  @Override
  public void fill(double[] values, long... shape) {
    ParameterShape.requireFits(values, shape);
    if (truncated) {
      Sampling.truncatedNormal(values, mean, stddev, seed);
    } else {
      Sampling.normal(values, mean, stddev, seed);
    }
  }

  @Override
  public String className() {
    return truncated ? "TruncatedNormal" : "RandomNormal";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("mean", mean, "stddev", stddev, "seed", seed);
  }
}
