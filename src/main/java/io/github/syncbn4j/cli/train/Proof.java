package io.github.syncbn4j.cli.train;

import java.util.Arrays;

/**
 * What a run's first steps have to show: that it learns, and that it is the run of one replica with
 * the whole batch.
 *
 * @param firstLoss of step 1
 * @param lastLoss the mean of the last {@link #LAST} of them
 * @param distance how far a step's loss was at most from that of one replica with the whole batch
 */
record Proof(int steps, double firstLoss, double lastLoss, double distance) {
  static final int STEPS = 50;
  static final double LIMIT = 1e-4;

  /** How many steps the loss at the end is the mean of. */
  static final int LAST = 5;

  /**
   * @param loss of the run
   * @param whole the loss of one replica that reads the same images in the same steps
   */
  static Proof of(double[] loss, double[] whole) {
    double distance = 0;
    for (int step = 0; step < STEPS; step++) {
      distance = Math.max(distance, Math.abs(loss[step] - whole[step])); // a NaN stays
    }
    double last = Arrays.stream(loss, STEPS - LAST, STEPS).average().orElseThrow();
    return new Proof(STEPS, loss[0], last, distance);
  }

  /** Whether the loss is at most half of what it was. */
  boolean halves() {
    return lastLoss <= firstLoss / 2;
  }

  boolean isWholeBatch() {
    return distance <= LIMIT;
  }

  boolean holds() {
    return halves() && isWholeBatch();
  }
}
