package io.github.syncbn4j.cli.bench;

import java.util.Arrays;

/**
 * Samples of how long a call takes, in microseconds; not numbers if there is no sample.
 *
 * @param discarded how many more were taken, in which a thread waited for a processor
 */
record Times(double median, double p10, double p90, int samples, int discarded) {

  /**
   * @param samples in any order
   */
  static Times of(double[] samples, int discarded) {
    double[] sorted = samples.clone();
    Arrays.sort(sorted);
    return new Times(
        percentile(sorted, 50),
        percentile(sorted, 10),
        percentile(sorted, 90),
        samples.length,
        discarded);
  }

  private static double percentile(double[] sorted, int percent) {
    if (sorted.length == 0) {
      return Double.NaN;
    }
    double at = (sorted.length - 1) * percent / 100.0;
    int below = (int) at;
    int above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
  }
}
