package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.pytorch.ReplicaThreads;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/** Trains the network on the replicas of a group, each in a thread of its own. */
final class TrainingRun {
  /** What a replica reads. */
  @FunctionalInterface
  interface Batches {
    int[] images(int rank, int step);
  }

  /**
   * @param steps in all
   * @param stepsPerEpoch after which rank 0 tests its copy
   * @param test images to test with; none for no test
   */
  record Plan(Digits digits, Batches batches, int steps, int stepsPerEpoch, int[] test) {}

  /**
   * What came out.
   *
   * @param loss of every step: the mean over the images of all replicas
   * @param accuracy after every epoch, of rank 0's copy
   * @param meanAccuracy at the end, with the mean of the replicas' running statistics
   */
  record Curves(double[] loss, double[] accuracy, double meanAccuracy, double seconds) {}

  private final List<ReplicaTrainer> trainers = new ArrayList<>();
  private final Plan plan;
  private final Progress progress;
  private final double[][] loss;
  private final double[] accuracy;

  private TrainingRun(
      ReplicaGroup group, Normalizations normalizations, Plan plan, long seed, Progress progress) {
    this.plan = plan;
    this.progress = progress;
    this.loss = new double[group.size()][plan.steps()];
    this.accuracy = new double[plan.test().length == 0 ? 0 : plan.steps() / plan.stepsPerEpoch()];
    torch.manual_seed(seed); // rank 0 is first; the others' weights are replaced by its
    for (Replica replica : group.replicas()) {
      trainers.add(
          new ReplicaTrainer(
              replica,
              plan.digits(),
              step -> plan.batches().images(replica.rank(), step),
              normalizations.of(replica)));
    }
  }

  /**
   * @throws RuntimeException what the first replica failed of; the group is closed then
   */
  static Curves train(
      ReplicaGroup group, Normalizations normalizations, Plan plan, long seed, Progress progress) {
    long begun = System.nanoTime();
    TrainingRun job = new TrainingRun(group, normalizations, plan, seed, progress);
    ReplicaThreads.run(group, replica -> job.runReplica(replica.rank()));
    double[] total = new double[plan.steps()];
    for (int step = 0; step < total.length; step++) {
      for (double[] ofReplica : job.loss) {
        total[step] += ofReplica[step];
      }
    }
    double mean = plan.test().length == 0 ? Double.NaN : job.accuracyWithMeanStatistics();
    return new Curves(total, job.accuracy, mean, (System.nanoTime() - begun) / 1e9);
  }

  private void runReplica(int rank) {
    ReplicaTrainer trainer = trainers.get(rank);
    trainer.start();
    for (int step = 0; step < plan.steps(); step++) {
      progress.check();
      loss[rank][step] = trainer.step(step);
      if (rank == 0) {
        progress.step();
        if (accuracy.length > 0 && (step + 1) % plan.stepsPerEpoch() == 0) {
          accuracy[step / plan.stepsPerEpoch()] = trainer.accuracy(plan.test());
        }
      }
    }
  }

  @SuppressWarnings("try")
  private double accuracyWithMeanStatistics() {
    Scalar replicas = new Scalar((double) trainers.size());
    try (NoGradGuard noGrad = new NoGradGuard();
        TensorVector means = trainers.get(0).buffers()) {
      for (ReplicaTrainer other : trainers.subList(1, trainers.size())) {
        try (TensorVector theirs = other.buffers()) {
          for (long i = 0; i < means.size(); i++) {
            means.get(i).add_(theirs.get(i).to(means.get(i)));
          }
        }
      }
      for (long i = 0; i < means.size(); i++) {
        means.get(i).div_(replicas);
      }
    }
    return trainers.get(0).accuracy(plan.test());
  }
}
