package io.github.syncbn4j.cli;

import io.github.syncbn4j.cli.train.TrainJob;
import io.github.syncbn4j.job.JobEnvironment;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code syncbn train}: trains a small network, and shows what synchronized normalization does. */
@Command(
    name = "train",
    description = {
      "Trains a small ConvNet on real handwritten digits, data-parallel with bytedeco PyTorch, once"
          + " with synchronized normalization and once with normalization per replica.",
      "",
      "Each replica reads its own shard of a training set that is sorted by class, so that it sees"
          + " one class at a time. Prints loss and test accuracy side by side and the proof: over"
          + " the first 50 steps, with synchronized normalization, the loss halves and stays within"
          + " 1e-4 of one replica with the whole batch, step by step. Writes train.json and"
          + " train.png.",
      "",
      "Started several times by torchrun, mpirun or srun, each process is one replica, on a GPU of"
          + " its own: with --device gpu --norm sync. Rank 0 prints and writes."
    },
    footer = {
      "",
      "Exit status: 0 if the proof holds, or there was none to be had (--norm local, fewer than"
          + " four replicas); 1 if it failed, or something else did; 2 for wrong usage."
    })
final class TrainCommand implements Callable<Integer> {
  /** By their coordinates, a class of each. */
  private static final Map<String, String> LIBRARIES =
      new TreeMap<>(
          Map.of(
              "org.bytedeco:pytorch", "org.bytedeco.pytorch.Module",
              "org.knowm.xchart:xchart", "org.knowm.xchart.XYChart",
              "me.tongfei:progressbar", "me.tongfei.progressbar.ProgressBar"));

  private static final int MOST_REPLICAS = 64;
  private static final int MOST_EPOCHS = 10_000;
  private static final int INTERRUPTED = 130;

  enum Kind {
    cpu,
    gpu
  }

  enum Norm {
    sync,
    local,
    both
  }

  @Option(
      names = "--device",
      paramLabel = "cpu|gpu",
      defaultValue = "cpu",
      description =
          "Where synchronized normalization runs: CPU replicas, or GPUs 0, 1, ... Default: cpu."
              + " Everything else is libtorch's: with --device gpu on the GPUs too if its jar has"
              + " CUDA, otherwise on the host.")
  private Kind device;

  @Option(
      names = "--replicas",
      paramLabel = "N",
      defaultValue = "4",
      description =
          "How many copies of the network train together. Default: 4. With less than four, a step"
              + " may see too few classes for the proof: the loss may not halve.")
  private int replicas;

  @Option(
      names = "--batch",
      paramLabel = "N",
      defaultValue = "4",
      description = "Images a replica and step. Default: 4.")
  private int batch;

  @Option(
      names = "--epochs",
      paramLabel = "N",
      defaultValue = "8",
      description = "How often to read the training set. Default: 8.")
  private int epochs;

  @Option(
      names = "--norm",
      paramLabel = "sync|local|both",
      defaultValue = "both",
      description = "Normalization across the replicas, per replica, or both. Default: both.")
  private Norm norm;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Of the split, the order and the first weights. Default: 1.")
  private long seed;

  @Option(
      names = "--data",
      paramLabel = "FILE",
      description =
          "Other images, as csv or csv.gz: 64 pixels of 8 x 8 (0 to 16) and the class (0 to 9) a"
              + " row.")
  private Path data;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      defaultValue = "syncbn-train",
      description = "Where to write train.json and train.png. Default: syncbn-train.")
  private Path out;

  @Option(
      names = "--checkpoint",
      paramLabel = "DIR",
      description = "Save every run there after every epoch: network, optimizer, curves.")
  private Path checkpoint;

  @Option(
      names = "--resume",
      paramLabel = "DIR",
      description =
          "Go on with the runs saved there, to the same bits as if they had never stopped. Other"
              + " options than --epochs, --norm, --out and --checkpoint have to be the same.")
  private Path resume;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    OptionalLibraries.require("train", LIBRARIES);
    JobEnvironment job = job();
    if (job != null) {
      requireJobOptions(job);
      replicas = job.worldSize();
    }
    requireRange("--replicas", replicas, MOST_REPLICAS);
    requireRange("--batch", batch, Integer.MAX_VALUE / MOST_REPLICAS);
    requireRange("--epochs", epochs, MOST_EPOCHS);
    if (batch == 1 && norm != Norm.sync) {
      throw usage(
          "--batch is 1, which per-replica normalization cannot train with; --norm sync can");
    }
    if (batch == 1 && replicas == 1) {
      throw usage("--batch and --replicas are 1: one image has nothing to be normalized with");
    }
    if (device == Kind.gpu && job == null) {
      RequiredGpus.require(replicas, spec.commandLine());
    }
    TrainJob training;
    try {
      training =
          new TrainJob(
              new TrainJob.Options(
                  job,
                  device == Kind.gpu,
                  replicas,
                  batch,
                  epochs,
                  norm != Norm.local,
                  norm != Norm.sync,
                  seed,
                  data,
                  out,
                  checkpoint,
                  resume,
                  new BuildInfo().version()));
    } catch (IllegalArgumentException e) {
      throw usage(e.getMessage());
    }
    try {
      return training.run(spec.commandLine().getOut()) ? 0 : 1;
    } catch (CancellationException e) {
      return INTERRUPTED;
    }
  }

  /** Null if this process is the only one. */
  private JobEnvironment job() {
    if (!JobEnvironment.isIn(System.getenv())) {
      return null;
    }
    try {
      JobEnvironment job = JobEnvironment.of(System.getenv());
      return job.worldSize() == 1 ? null : job;
    } catch (IllegalArgumentException e) {
      throw usage(e.getMessage());
    }
  }

  private void requireJobOptions(JobEnvironment job) {
    String here = "this is rank %d of %d processes".formatted(job.rank(), job.worldSize());
    if (device == Kind.cpu) {
      throw usage(
          "--device is cpu, but %s, and CPU replicas in several processes are not offered: --device gpu"
              .formatted(here));
    }
    if (norm != Norm.sync) {
      throw usage("--norm is %s, but %s, which train with --norm sync only".formatted(norm, here));
    }
    boolean given = spec.commandLine().getParseResult().hasMatchedOption("--replicas");
    if (given && replicas != job.worldSize()) {
      throw usage("--replicas is %d, but %s, a replica each".formatted(replicas, here));
    }
  }

  private void requireRange(String option, int value, int most) {
    if (value < 1 || value > most) {
      throw usage("%s is %d, allowed is 1 to %d".formatted(option, value, most));
    }
  }

  private ParameterException usage(String message) {
    return new ParameterException(spec.commandLine(), message);
  }
}
