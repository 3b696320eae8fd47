package io.github.syncbn4j.nn;

import io.github.syncbn4j.check.Shown;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * Random values whose variance is {@code scale / n}, with {@code n} from the shape's {@link Fans}:
 * Keras' {@code VarianceScaling}, and the Glorot, LeCun and He initializers.
 *
 * @param mode what {@code n} is: {@code fan_in}, {@code fan_out} or {@code fan_avg}, at least 1
 * @param distribution {@code truncated_normal}, {@code untruncated_normal} or {@code uniform}
 * @param seed null for a fresh one each time
 */
record VarianceScaling(String className, double scale, String mode, String distribution, Long seed)
    implements Initializer, KerasObject {
  static final double SCALE = 1;
  static final String FAN_IN = "fan_in";
  static final String FAN_OUT = "fan_out";
  static final String FAN_AVG = "fan_avg";
  static final String TRUNCATED = "truncated_normal";
  static final String UNTRUNCATED = "untruncated_normal";
  static final String UNIFORM = "uniform";

  private static final String NAME = "VarianceScaling";

  /** The standard deviation of a standard normal that is cut at -2 and 2. */
  private static final double TRUNCATED_STDDEV = 0.87962566103423978;

  VarianceScaling {
    if (!(scale > 0)) {
      throw new IllegalArgumentException("`scale` must be positive float. Received: " + scale);
    }
    KerasObject.requireFinite("scale", scale);
    if (!Set.of(FAN_IN, FAN_OUT, FAN_AVG).contains(mode)) {
      throw new IllegalArgumentException("Invalid `mode` argument: " + Shown.plain(mode));
    }
    distribution = distribution.toLowerCase(Locale.ROOT);
    if (distribution.equals("normal")) {
      distribution = TRUNCATED;
    }
    if (!Set.of(TRUNCATED, UNTRUNCATED, UNIFORM).contains(distribution)) {
      throw new IllegalArgumentException(
          "Invalid `distribution` argument: " + Shown.plain(distribution));
    }
  }

  static VarianceScaling of(double scale, String mode, String distribution, Long seed) {
    return new VarianceScaling(NAME, scale, mode, distribution, seed);
  }

  @Override
  public void fill(double[] values, long... shape) {
    ParameterShape.requireFits(values, shape);
    Fans fans = Fans.of(shape);
    double n =
        switch (mode) {
          case FAN_IN -> fans.in();
          case FAN_OUT -> fans.out();
          default -> (fans.in() + fans.out()) / 2;
        };
    double variance = scale / Math.max(1, n);
    switch (distribution) {
      case TRUNCATED ->
          Sampling.truncatedNormal(values, 0, Math.sqrt(variance) / TRUNCATED_STDDEV, seed);
      case UNTRUNCATED -> Sampling.normal(values, 0, Math.sqrt(variance), seed);
      default -> {
        double limit = Math.sqrt(3 * variance);
        Sampling.uniform(values, -limit, limit, seed);
      }
    }
  }

  @Override
  public Map<String, Object> config() {
    return className.equals(NAME)
        ? KerasObject.entries(
            "scale", scale, "mode", mode, "distribution", distribution, "seed", seed)
        : KerasObject.entries("seed", seed);
  }
}
