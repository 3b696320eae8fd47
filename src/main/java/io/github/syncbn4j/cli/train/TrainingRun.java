package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.output.Progress;
import io.github.syncbn4j.pytorch.ReplicaThreads;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * Trains the network on the replicas of a group, each in a thread of its own. Of several processes,
 * that of rank 0 tests and saves.
 */
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
   * What is read before the first step, and written after every epoch.
   *
   * @param from null to start anew
   * @param to null to save nothing
   * @param settings that are saved along
   */
  record Saving(Checkpoint from, Path to, Map<String, String> settings) {
    static final Saving NONE = new Saving(null, null, Map.of());
  }

  /**
   * What came out.
   *
   * @param loss of every step: the mean over the images of all replicas
   * @param accuracy after every epoch, of rank 0's copy; 0 in other processes
   * @param meanAccuracy at the end, with the mean of the replicas' running statistics
   */
  record Curves(double[] loss, double[] accuracy, double meanAccuracy, double seconds) {}

  private final ReplicaGroup group;

  /** Of this process's replicas. */
  private final List<ReplicaTrainer> trainers = new ArrayList<>();

  private final Plan plan;
  private final Progress progress;
  private final Saving saving;
  private final long begun = System.nanoTime();

  private final double[] loss;
  private final double[] accuracy;

  private TrainingRun(
      ReplicaGroup group,
      Normalizations normalizations,
      Plan plan,
      long seed,
      Progress progress,
      Saving saving) {
    this.group = group;
    this.plan = plan;
    this.progress = progress;
    this.saving = saving;
    this.loss = new double[plan.steps()];
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
   * @throws IOException if a checkpoint cannot be read or written
   */
  static Curves train(
      ReplicaGroup group,
      Normalizations normalizations,
      Plan plan,
      long seed,
      Progress progress,
      Saving saving)
      throws IOException {
    TrainingRun run = new TrainingRun(group, normalizations, plan, seed, progress, saving);
    ReplicaThreads.run(group, replica -> run.trainer(replica).start());
    int step = saving.from() == null ? 0 : run.restore(saving.from());
    while (step < plan.steps()) {
      step = run.epoch(step);
    }
    double mean =
        run.leads() && plan.test().length > 0 ? run.accuracyWithMeanStatistics() : Double.NaN;
    return new Curves(run.loss, run.accuracy, mean, run.seconds());
  }

  /**
   * @return the next step
   */
  private int restore(Checkpoint from) throws IOException {
    for (Replica replica : group.replicas()) {
      from.restore(trainer(replica), replica.rank());
    }
    double[] epochs = from.training().accuracy();
    System.arraycopy(from.training().loss(), 0, loss, 0, from.steps());
    System.arraycopy(epochs, 0, accuracy, 0, epochs.length);
    return from.steps();
  }

  /**
   * Between two epochs no replica's thread runs, so that all of them are at the same step where one
   * is tested and saved.
   *
   * @return the next step
   */
  private int epoch(int first) throws IOException {
    int end = Math.min(first + plan.stepsPerEpoch(), plan.steps());
    ReplicaThreads.run(group, replica -> runReplica(replica, first, end));
    if (!leads()) {
      return end;
    }
    int epochs = accuracy.length == 0 ? 0 : end / plan.stepsPerEpoch();
    if (epochs > 0) {
      accuracy[epochs - 1] = trainers.get(0).accuracy(plan.test());
    }
    if (saving.to() != null) {
      Checkpoint.write(
          saving.to(),
          new Checkpoint.Training(
              saving.settings(),
              Arrays.copyOf(loss, end),
              Arrays.copyOf(accuracy, epochs),
              seconds()),
          trainers);
    }
    return end;
  }

  private void runReplica(Replica replica, int first, int end) {
    boolean isFirst = replica == group.replicas().get(0);
    double[] own = new double[end - first];
    for (int step = first; step < end; step++) {
      progress.check();
      own[step - first] = trainer(replica).step(step);
      if (isFirst) {
        progress.step();
      }
    }
    double[] all = ofAllReplicas(replica, own);
    for (int i = 0; isFirst && i < all.length; i++) {
      loss[first + i % own.length] += all[i]; // in rank order
    }
  }

  /** The values of all replicas, by rank: each has zeros where the others have theirs. */
  private static double[] ofAllReplicas(Replica replica, double[] own) {
    double[] values = new double[replica.group().size() * own.length];
    System.arraycopy(own, 0, values, replica.rank() * own.length, own.length);
    try (DeviceTensor tensor = replica.allocate(DType.FLOAT64, values.length)) {
      tensor.copyFromHost(values);
      replica.allReduce(tensor);
      return tensor.copyToHostAsDoubles();
    }
  }

  private ReplicaTrainer trainer(Replica replica) {
    return trainers.get(group.replicas().indexOf(replica));
  }

  /** Whether this process has rank 0. */
  private boolean leads() {
    return group.replicas().get(0).rank() == 0;
  }

  private double seconds() {
    double before = saving.from() == null ? 0 : saving.from().training().seconds();
    return before + (System.nanoTime() - begun) / 1e9;
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
