package io.github.syncbn4j.nn;

import java.util.SplittableRandom;
import java.util.random.RandomGenerator;

/**
 * Random values. The same seed gives the same values in every call; no seed (null) gives others in
 * each.
 */
final class Sampling {
  private static final double TRUNCATE = 2;

  private Sampling() {}

  /** {@code [from, to)}; {@code from} where the two are equal. */
  static void uniform(double[] values, double from, double to, Long seed) {
    RandomGenerator random = generator(seed);
    for (int i = 0; i < values.length; i++) {
      double value = from + random.nextDouble() * (to - from);
      // A sum that rounds up would be the end of the range, which is excluded.
      values[i] = value == to ? Math.nextAfter(to, from) : value;
    }
  }

  static void normal(double[] values, double mean, double stddev, Long seed) {
    RandomGenerator random = generator(seed);
    for (int i = 0; i < values.length; i++) {
      values[i] = mean + stddev * random.nextGaussian();
    }
  }

  /** Normal, drawn again where it is more than two standard deviations from the mean. */
  static void truncatedNormal(double[] values, double mean, double stddev, Long seed) {
    RandomGenerator random = generator(seed);
    for (int i = 0; i < values.length; i++) {
      double z;
      do {
        z = random.nextGaussian();
      } while (Math.abs(z) > TRUNCATE);
      values[i] = mean + stddev * z;
    }
  }

  private static RandomGenerator generator(Long seed) {
    return seed == null ? new SplittableRandom() : new SplittableRandom(seed);
  }
}
