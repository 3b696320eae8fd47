package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.cli.train.TrainingRun.Curves;

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

  /** Null where synchronized normalization was not asked for: there is nothing to be shown. */
  Verdict verdict(int replicas) {
    if (sync == null) {
      return null;
    }
    if (!syncProof().isWholeBatch()) {
      return Verdict.FAILED;
    }
    boolean halves = syncProof().halves();
    if (replicas == 1 || replicas < Verdict.REPLICAS && !halves) {
      return Verdict.TOO_FEW_REPLICAS;
    }
    return halves && (local == null || !localProof().holds()) ? Verdict.HOLDS : Verdict.FAILED;
  }
}
