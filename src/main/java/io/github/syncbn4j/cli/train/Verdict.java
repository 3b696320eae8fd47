package io.github.syncbn4j.cli.train;

import java.util.Locale;

/** What the first steps show. */
enum Verdict {
  /**
   * Synchronized normalization learns, step by step as one replica with the whole batch does, and
   * normalization per replica does not.
   */
  HOLDS,

  /**
   * Synchronized normalization is that of the whole batch, but in so few replicas that there is
   * nothing to tell apart (one), or that a step sees too few classes for the loss to halve.
   */
  TOO_FEW_REPLICAS,

  /** Anything else: what was to be shown is not so. */
  FAILED;

  /** With fewer, each with one class at a time, whether the loss halves depends on the seed. */
  static final int REPLICAS = 4;

  /** As in {@code too few replicas}. */
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT).replace('_', ' ');
  }
}
