package io.github.syncbn4j.cli.bench;

import java.util.Arrays;
import java.util.stream.DoubleStream;
import java.util.stream.IntStream;

/**
 * Samples of how long a call takes, in microseconds; not numbers if there is no sample.
 *
 * @param rounds a sample for each round in which all calls that are compared were timed; not a
 *     number where there is none
 * @param discarded how many more were taken, in which a thread waited for a processor
 */
record Times(double median, double p10, double p90, double[] rounds, int discarded) {

  /**
   * @param rounds may hold what is not a number
   */
  static Times of(double[] rounds, int discarded) {
    double[] sorted = sorted(rounds);
    return new Times(
        percentile(sorted, 50), percentile(sorted, 10), percentile(sorted, 90), rounds, discarded);
  }

  /** With those of another time. */
  Times and(Times other) {
    return of(
        DoubleStream.concat(Arrays.stream(rounds), Arrays.stream(other.rounds)).toArray(),
        discarded + other.discarded);
  }

  /** Of one call, where these are of {@code calls} together. */
  Times of(int calls) {
    return of(Arrays.stream(rounds).map(round -> round / calls).toArray(), discarded);
  }

  int samples() {
    return sorted(rounds).length;
  }

  /**
   * This by another's time: the median of what each round says; that of the medians where they were
   * not timed in the same rounds.
   */
  double ratio(Times other) {
    if (rounds.length != other.rounds.length) {
      return median / other.median;
    }
    double[] ratios =
        IntStream.range(0, rounds.length).mapToDouble(i -> rounds[i] / other.rounds[i]).toArray();
    return percentile(sorted(ratios), 50);
  }

  private static double[] sorted(double[] values) {
    return Arrays.stream(values).filter(value -> !Double.isNaN(value)).sorted().toArray();
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
