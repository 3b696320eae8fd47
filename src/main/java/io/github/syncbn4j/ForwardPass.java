package io.github.syncbn4j;

/**
 * What a forward leaves for its backward: x, the mean, 1 / sigma and the rows, on the replicas that
 * took part. Several may be open at once. Closing one lets its memory serve the next forward; using
 * it after that throws {@link IllegalStateException}.
 */
public final class ForwardPass implements AutoCloseable {
  private final PassPool pool;
  private final boolean training;

  /** Null once this is closed: its memory may by then serve another. */
  private PooledPass pass;

  ForwardPass(PassPool pool, PooledPass pass) {
    this.pool = pool;
    this.pass = pass;
    this.training = pass.training();
  }

  /**
   * Whether it normalized with the statistics of its batch: a training forward of a layer that is
   * not frozen.
   */
  public boolean training() {
    return training;
  }

  /**
   * @throws IllegalStateException if closed
   * @throws IllegalArgumentException if it is of another layer, or not over this many replicas
   */
  synchronized PooledPass require(SyncBatchNormalization layer, int parts) {
    if (pass == null) {
      throw new IllegalStateException("the pass is closed");
    }
    if (pass.layer() != layer) {
      throw new IllegalArgumentException("the pass is of another layer: " + pass.layer());
    }
    if (pass.parts() != parts) {
      throw new IllegalArgumentException(
          "the pass is over %d replica(s), the call is for %d".formatted(pass.parts(), parts));
    }
    return pass;
  }

  /** Gives its memory back to the layer, which keeps it for the next forward. Idempotent. */
  @Override
  public synchronized void close() {
    if (pass != null) {
      pool.giveBack(pass);
      pass = null;
    }
  }
}
