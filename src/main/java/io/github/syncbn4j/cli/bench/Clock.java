package io.github.syncbn4j.cli.bench;

/** How long work takes, and whether that counts. */
interface Clock {
  /** Nanoseconds until all of {@code work} is done. */
  double nanos(Runnable work);

  /** After everything has run once. */
  default void find() {}

  /** Returns when nothing runs any more. */
  default void settle() {}

  /** Nanoseconds until now in which threads that compute waited for a processor. */
  default long waited() {
    return 0;
  }
}
