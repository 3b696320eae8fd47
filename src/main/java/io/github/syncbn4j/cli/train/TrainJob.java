package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.train.TrainingRun.Curves;
import io.github.syncbn4j.cli.train.TrainingRun.Plan;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.Locale;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** {@code syncbn train} from its options to its report. */
public final class TrainJob {
  /** For replicas to wait for each other: far above what any step takes. */
  private static final Duration TIMEOUT = Duration.ofMinutes(1);

  private static final Duration STOP_TIMEOUT = Duration.ofSeconds(5);

  /**
   * @param gpu whether the replicas are GPUs 0, 1, ...
   * @param batch images a replica and step
   * @param sync whether to train with synchronized normalization
   * @param local whether to train with normalization per replica
   * @param data null for the digits that come with the library
   * @param out folder for what is written
   * @param version of this build
   */
  public record Options(
      boolean gpu,
      int replicas,
      int batch,
      int epochs,
      boolean sync,
      boolean local,
      long seed,
      Path data,
      Path out,
      String version) {}

  private final Options options;
  private final Digits digits;
  private final Shards shards;

  /**
   * Reads the data.
   *
   * @throws IOException if that is no such data
   * @throws IllegalArgumentException for options that do not fit each other or the data
   */
  public TrainJob(Options options) throws IOException {
    this.options = options;
    this.digits = options.data() == null ? Digits.builtIn() : Digits.read(options.data());
    this.shards = new Shards(digits, options.replicas(), options.batch(), options.seed());
    if (shards.stepsPerEpoch() == 0) {
      throw new IllegalArgumentException(
          "--batch is %d, but each of %d replicas has %d image(s) to train with"
              .formatted(options.batch(), options.replicas(), shards.shardSize()));
    }
    if (shards.test().length == 0) {
      throw new IllegalArgumentException(
          "%s has %d image(s): none is left to test with".formatted(digits.name(), digits.size()));
    }
    if (options.sync() && steps() < Proof.STEPS) {
      throw new IllegalArgumentException(
          "--epochs is %d, which makes %d steps, but the proof needs %d"
              .formatted(options.epochs(), steps(), Proof.STEPS));
    }
  }

  private int steps() {
    return options.epochs() * shards.stepsPerEpoch();
  }

  /**
   * Trains, prints and writes.
   *
   * @return whether the proof did not fail: it holds, or these options leave nothing to be shown
   * @throws java.util.concurrent.CancellationException if the JVM is told to end meanwhile
   */
  public boolean run(PrintWriter out) throws IOException {
    Files.createDirectories(options.out());
    Setting setting = setting();
    setting.libtorch().comparable();
    introduce(out, setting);
    Results results = train();
    TextReport report = new TextReport(out, options, results);
    report.print(shards.stepsPerEpoch());
    Path json =
        write(
            "train.json",
            new JsonReport(options, setting, results).text().getBytes(StandardCharsets.UTF_8));
    Path png = write("train.png", CurvePlot.png(options, results));
    out.printf(Locale.ROOT, "written: %s, %s%n", json, png);
    report.printAccuracy();
    out.flush();
    return results.verdict(options.replicas()) != Verdict.FAILED;
  }

  private Path write(String name, byte[] content) throws IOException {
    Path file = options.out().resolve(name);
    Path partial = options.out().resolve("." + name + ".part");
    Files.write(partial, content);
    return Files.move(partial, file, StandardCopyOption.REPLACE_EXISTING);
  }

  private Setting setting() {
    String devices;
    try (ReplicaGroup group = group(options.replicas())) {
      devices =
          group.replicas().stream()
                  .map(replica -> replica.deviceId())
                  .collect(Collectors.joining(", "))
              + " ("
              + group.replica(0).deviceDescription()
              + ")";
    }
    return new Setting(
        digits.name(),
        shards.trainingImages(),
        shards.test().length,
        shards.stepsPerEpoch(),
        devices,
        Libtorch.of(options.gpu()));
  }

  private void introduce(PrintWriter out, Setting setting) {
    out.printf(
        Locale.ROOT,
        "%d replicas x %d images, %d epochs of %d steps, seed %d%n",
        options.replicas(),
        options.batch(),
        options.epochs(),
        setting.stepsPerEpoch(),
        options.seed());
    out.printf(
        Locale.ROOT,
        "data: %s, %d to train with, %d to test with; a shard a replica, sorted by class%n",
        setting.data(),
        setting.trainingImages(),
        setting.testImages());
    if (options.sync()) {
      out.printf(
          Locale.ROOT,
          "sync: syncbn4j's synchronized normalization on %s%s%n",
          setting.normalizationOn(),
          setting.libtorch() == Libtorch.HOST_WITHOUT_CUDA
              ? "; activations and gradients are copied there and back"
              : "");
    }
    if (options.local()) {
      out.println("local: libtorch's BatchNorm2d, on " + setting.libtorch().where());
    }
    out.printf(
        "all else: libtorch, on %s: %s%n", setting.libtorch().where(), setting.libtorch().reason());
    out.println();
    out.flush();
  }

  private ReplicaGroup group(int replicas) {
    ReplicaGroup.Builder builder = ReplicaGroup.builder().timeout(TIMEOUT);
    return (options.gpu()
            ? builder.gpus(IntStream.range(0, replicas).toArray())
            : builder.cpus(replicas))
        .build();
  }

  /** All runs; a JVM that is told to end waits until their threads have left native code. */
  private Results train() {
    long total = (options.sync() ? steps() + Proof.STEPS : 0L) + (options.local() ? steps() : 0L);
    CountDownLatch done = new CountDownLatch(1);
    try (Progress progress = Progress.of(total)) {
      Thread hook = new Thread(() -> stop(progress, done));
      Runtime.getRuntime().addShutdownHook(hook);
      try {
        return train(progress);
      } finally {
        done.countDown();
        forget(hook);
      }
    }
  }

  private static void stop(Progress progress, CountDownLatch done) {
    progress.stop();
    try {
      done.await(STOP_TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static void forget(Thread hook) {
    try {
      Runtime.getRuntime().removeShutdownHook(hook);
    } catch (IllegalStateException e) {
      // it is what ended the training
    }
  }

  private Results train(Progress progress) {
    Plan plan = new Plan(digits, shards::batch, steps(), shards.stepsPerEpoch(), shards.test());
    Plan whole =
        new Plan(
            digits,
            (rank, step) -> shards.wholeBatch(step),
            Proof.STEPS,
            shards.stepsPerEpoch(),
            new int[0]);
    Curves sync = options.sync() ? trainSync("sync", options.replicas(), plan, progress) : null;
    Curves one = options.sync() ? trainSync("1 replica", 1, whole, progress) : null;
    Curves local = options.local() ? trainLocal(plan, progress) : null;
    return new Results(sync, local, one);
  }

  private Curves trainSync(String name, int replicas, Plan plan, Progress progress) {
    progress.phase(name);
    try (ReplicaGroup group = group(replicas)) {
      Normalizations layers = Normalizations.synchronizedIn(group);
      return TrainingRun.train(group, layers, plan, options.seed(), progress);
    }
  }

  private Curves trainLocal(Plan plan, Progress progress) {
    progress.phase("local");
    try (ReplicaGroup group = group(options.replicas())) {
      return TrainingRun.train(group, Normalizations.local(), plan, options.seed(), progress);
    }
  }
}
