package io.github.syncbn4j.job;

import java.util.List;

/**
 * Where ranks say what they have called, beside the collectives themselves, and hear why they
 * cannot go on. May be used by several threads; only {@link #verdict} ever waits.
 */
public interface SideChannel extends AutoCloseable {
  /** For ranks that have no other way to each other than their collectives. */
  SideChannel NONE =
      new SideChannel() {
        @Override
        public void report(int rank, List<Call> calls) {}

        @Override
        public String verdict() {
          return null;
        }

        @Override
        public void fail(String reason) {}

        @Override
        public void close() {}
      };

  /**
   * What a rank of this process has called since its last report.
   *
   * @param calls in order; null in the place of one that is not known
   */
  void report(int rank, List<Call> calls);

  /**
   * Why the ranks cannot go on; null while they can, as far as is known. May wait for another
   * process, no longer than the timeout.
   */
  String verdict();

  /** Tells the other processes that this one cannot go on. */
  void fail(String reason);

  /** This process calls nothing any more. */
  @Override
  void close();
}
