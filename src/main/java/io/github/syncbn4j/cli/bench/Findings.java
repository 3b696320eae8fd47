package io.github.syncbn4j.cli.bench;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * What has been found of one implementation of a pass.
 *
 * @param ways times of each of its ways to run it; none if it has no such pass
 * @param error the largest against float64, of all ways
 * @param allowed the largest error that still is the same computation
 * @param enqueue microseconds until a call returns; not a number where it returns when it is done
 */
record Findings(List<Times> ways, double error, double allowed, double enqueue) {

  /** With what was found another time. */
  Findings and(Findings other) {
    List<Times> both = new ArrayList<>();
    for (int i = 0; i < ways.size(); i++) {
      both.add(ways.get(i).and(other.ways.get(i)));
    }
    return new Findings(
        both, Math.max(error, other.error), allowed, Math.min(enqueue, other.enqueue));
  }

  boolean isRight() {
    return error <= allowed;
  }

  int discarded() {
    return ways.stream().mapToInt(Times::discarded).sum();
  }

  /** Of the ways that have all their samples; null if none has. */
  Times fastest() {
    return ways.stream()
        .filter(times -> times.samples() >= BenchJob.SWEEPS * Sampler.SAMPLES)
        .min(Comparator.comparingDouble(Times::median))
        .orElse(null);
  }
}
