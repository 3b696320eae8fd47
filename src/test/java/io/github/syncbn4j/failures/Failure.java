package io.github.syncbn4j.failures;

/** What goes wrong on one rank of a job. */
enum Failure {
  DIES_BEFORE("dies before the collective"),
  DIES_IN("dies in the collective"),
  DIES_AFTER("dies after the collective"),
  STALLS("stalls"),
  OUT_OF_MEMORY("out of memory"),
  THROWS("throws between two layers"),
  WRONG_ORDER("comes to another layer"),
  WRONG_CHANNELS("comes with other channels"),
  WRONG_DTYPE("comes with another dtype"),
  MISSING("missing from the start");

  private final String text;

  Failure(String text) {
    this.text = text;
  }

  boolean isDeath() {
    return compareTo(DIES_AFTER) <= 0;
  }

  @Override
  public String toString() {
    return text;
  }
}
