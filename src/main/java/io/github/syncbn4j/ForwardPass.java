package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Rows;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

/**
 * What a forward leaves for its backward: x, the mean, 1 / sigma and the rows, on the replicas that
 * took part. Several may be open at once. Closing one lets its memory serve the next forward; using
 * it after that throws {@link IllegalStateException} until a later forward happens to return the
 * same object, so keep no reference to a closed pass.
 */
public final class ForwardPass implements AutoCloseable {
  private final SyncBatchNormalization layer;
  private final PassPool pool;
  private final PassPart[] parts;
  private final Rows[] rows;
  private final Runnable forward = this::enqueueForward;
  private final Runnable backward = this::enqueueBackward;
  private volatile boolean open;

  ForwardPass(SyncBatchNormalization layer, PassPool pool, List<LayerReplica> members) {
    this.layer = layer;
    this.pool = pool;
    this.parts = new PassPart[members.size()];
    this.rows = new Rows[members.size()];
    try {
      for (int i = 0; i < parts.length; i++) {
        parts[i] = new PassPart(members.get(i));
        rows[i] = parts[i].rows();
      }
    } catch (RuntimeException e) {
      release();
      throw e;
    }
  }

  /** Whether it was a training forward. */
  public boolean training() {
    return parts[0].training();
  }

  /**
   * The enqueueing of a forward that the parts are prepared for. Made once, so that a step makes
   * nothing.
   */
  Runnable forward() {
    return forward;
  }

  /** The enqueueing of a backward that the parts are prepared for. */
  Runnable backward() {
    return backward;
  }

  private void enqueueForward() {
    if (training()) {
      for (PassPart part : parts) {
        part.stats();
      }
      layer.group().exchange(rows);
    }
    for (PassPart part : parts) {
      part.normalize();
    }
  }

  private void enqueueBackward() {
    for (PassPart part : parts) {
      part.backwardReduce();
    }
    if (training()) {
      layer.group().exchange(rows);
    }
    for (PassPart part : parts) {
      part.backwardInput();
    }
  }

  PassPart part(int i) {
    return parts[i];
  }

  /** Returns what it was. Called by the pool alone. */
  boolean setOpen(boolean now) {
    boolean before = open;
    open = now;
    return before;
  }

  void requireOpen(SyncBatchNormalization by) {
    if (by != layer) {
      throw new IllegalArgumentException("the pass is of another layer: " + layer);
    }
    if (!open) {
      throw new IllegalStateException("the pass is closed");
    }
  }

  void requireParts(int count) {
    if (parts.length != count) {
      throw new IllegalArgumentException(
          "the pass is over %d replica(s), the call is for %d".formatted(parts.length, count));
    }
  }

  void release() {
    open = false;
    Cleanup.runAll(
        Arrays.stream(parts).filter(Objects::nonNull).<Runnable>map(p -> p::release).toList());
  }

  /** Gives its memory back to the layer, which keeps it for the next forward. Idempotent. */
  @Override
  public void close() {
    pool.giveBack(this);
  }
}
