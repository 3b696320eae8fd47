package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Passes over the same replicas, for use one after the other: a pass is made only when all others
 * are open.
 */
final class PassPool implements AutoCloseable {
  private final SyncBatchNormalization layer;
  private final List<LayerReplica> members;
  private final Deque<PooledPass> free = new ArrayDeque<>();
  private final List<PooledPass> all = new ArrayList<>();

  PassPool(SyncBatchNormalization layer, List<LayerReplica> members) {
    this.layer = layer;
    this.members = members;
  }

  synchronized PooledPass take() {
    PooledPass pass = free.pollLast();
    if (pass == null) {
      pass = new PooledPass(layer, members);
      all.add(pass);
    }
    return pass;
  }

  synchronized void giveBack(PooledPass pass) {
    free.addLast(pass);
  }

  /** Releases the memory of all passes, open ones too. */
  @Override
  public synchronized void close() {
    List<Runnable> releases = all.stream().<Runnable>map(pass -> pass::release).toList();
    all.clear();
    free.clear();
    Cleanup.runAll(releases);
  }
}
