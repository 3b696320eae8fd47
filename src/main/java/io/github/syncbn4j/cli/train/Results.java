package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.cli.train.DataParallel.Curves;

/**
 * What a command's runs gave.
 *
 * @param sync with synchronized normalization; null if that was not asked for
 * @param local with normalization per replica; null if that was not asked for
 * @param whole the first steps of one replica with the whole batch; null without {@code sync}
 */
record Results(Curves sync, Curves local, Curves whole) {
  /** Null where synchronized normalization was not asked for. */
  Proof syncProof() {
    return sync == null ? null : Proof.of(sync.loss(), whole.loss());
  }

  /** Null where there are not both to compare. */
  Proof localProof() {
    return sync == null || local == null ? null : Proof.of(local.loss(), whole.loss());
  }

  /** Of the run to compare with; null where synchronized normalization was not asked for. */
  Proof wholeProof() {
    return sync == null ? null : Proof.of(whole.loss(), whole.loss());
  }

  /**
   * Whether synchronized normalization learns as one replica with the whole batch does, and
   * normalization per replica, where there are several, does not. Nothing is to be proved without
   * synchronized normalization.
   */
  boolean proofHolds(int replicas) {
    if (sync == null) {
      return true;
    }
    boolean localDiffers = local == null || replicas == 1 || !localProof().holds();
    return syncProof().holds() && localDiffers;
  }
}
