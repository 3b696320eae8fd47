package io.github.syncbn4j.cli.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.output.Progress;
import io.github.syncbn4j.cli.train.TrainingRun.Batches;
import io.github.syncbn4j.cli.train.TrainingRun.Curves;
import io.github.syncbn4j.cli.train.TrainingRun.Plan;
import io.github.syncbn4j.cli.train.TrainingRun.Saving;
import java.io.IOException;
import java.util.Arrays;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** How training ends. */
@Timeout(20)
class TrainingRunTest {
  private static final int STEPS = 6;

  private final Digits digits = Digits.builtIn();
  private final Shards shards = new Shards(digits, 2, 4, 1);
  private final Progress progress = Progress.of("training", "steps", STEPS);

  TrainingRunTest() throws IOException {}

  private Curves train(ReplicaGroup group, Batches batches) throws IOException {
    Plan plan = new Plan(digits, batches, STEPS, 3, new int[] {0, 1, 2});
    return TrainingRun.train(
        group, Normalizations.synchronizedIn(group), plan, 1, progress, Saving.NONE);
  }

  @Test
  void everyStepHasALoss_everyEpochAnAccuracy() throws IOException {
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      Curves curves = train(group, shards::batch);
      assertThat(curves.loss()).hasSize(STEPS);
      assertThat(Arrays.stream(curves.loss())).allMatch(loss -> loss > 0 && loss < 10);
      assertThat(curves.accuracy()).hasSize(2);
    }
  }

  @Test
  void replicaThatFails_endsTheOthersAtOnce() {
    ReplicaGroup group = ReplicaGroup.cpus(2);
    Batches failing =
        (rank, step) -> {
          if (rank == 1 && step == 2) {
            throw new IllegalStateException("disk on fire");
          }
          return shards.batch(rank, step);
        };
    assertThatThrownBy(() -> train(group, failing))
        .isInstanceOf(IllegalStateException.class)
        .hasMessage("disk on fire");
    assertThatThrownBy(group::check).hasMessage("the group is closed");
    group.close();
  }

  @Test
  void stopping_endsAllReplicas() {
    Batches stopping =
        (rank, step) -> {
          if (rank == 0 && step == 2) {
            progress.stop();
          }
          return shards.batch(rank, step);
        };
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      assertThatThrownBy(() -> train(group, stopping)).isInstanceOf(CancellationException.class);
    }
  }
}
