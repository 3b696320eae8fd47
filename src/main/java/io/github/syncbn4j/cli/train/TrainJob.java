package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.output.Progress;
import io.github.syncbn4j.cli.train.TrainingRun.Curves;
import io.github.syncbn4j.cli.train.TrainingRun.Plan;
import io.github.syncbn4j.cli.train.TrainingRun.Saving;
import io.github.syncbn4j.job.JobEnvironment;
import io.github.syncbn4j.pytorch.LibtorchLoader;
import io.github.syncbn4j.state.AtomicFile;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * {@code syncbn train} from its options to its report. Of several processes, with a GPU each, that
 * of rank 0 prints, writes, and makes the run that needs no other.
 */
public final class TrainJob {
  /** For replicas to wait for each other: far above what any step takes. */
  private static final Duration TIMEOUT = Duration.ofMinutes(1);

  private static final Duration STOP_TIMEOUT = Duration.ofSeconds(5);

  private static final String SYNC = "sync";
  private static final String WHOLE = "1 replica";
  private static final String LOCAL = "local";

  /**
   * @param job the processes of which this is one; null if it has all replicas
   * @param gpu whether the replicas are GPUs 0, 1, ...
   * @param batch images a replica and step
   * @param sync whether to train with synchronized normalization
   * @param local whether to train with normalization per replica
   * @param data null for the digits that come with the library
   * @param out folder for what is written
   * @param checkpoint folder in which every run is saved after every epoch; null to save none
   * @param resume folder of such runs to go on with; null to start anew
   * @param version of this build
   */
  public record Options(
      JobEnvironment job,
      boolean gpu,
      int replicas,
      int batch,
      int epochs,
      boolean sync,
      boolean local,
      long seed,
      Path data,
      Path out,
      Path checkpoint,
      Path resume,
      String version) {}

  private final Options options;
  private final Digits digits;
  private final Shards shards;

  /** By the runs' names. */
  private final Map<String, Checkpoint> saved = new LinkedHashMap<>();

  /**
   * Reads the data, and what is to be resumed. One of several processes loads libtorch first.
   *
   * @throws IOException if that is no such data, or no checkpoint
   * @throws IllegalArgumentException for options that do not fit each other, the data or the
   *     checkpoints
   */
  public TrainJob(Options options) throws IOException {
    this.options = options;
    if (options.job() != null) {
      LibtorchLoader.load();
    }
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
    if (options.resume() != null) {
      readCheckpoints();
    }
  }

  private boolean leads() {
    return options.job() == null || options.job().rank() == 0;
  }

  /** Those of which this process makes a part or all. */
  private List<String> runs() {
    if (!leads()) {
      return List.of(SYNC);
    }
    List<String> sync = options.sync() ? List.of(SYNC, WHOLE) : List.of();
    List<String> local = options.local() ? List.of(LOCAL) : List.of();
    return Stream.concat(sync.stream(), local.stream()).toList();
  }

  private static Path file(Path folder, String run) {
    return folder.resolve(run.replace(' ', '-') + ".pt");
  }

  /** A run that was not begun when the others were saved has none. */
  private void readCheckpoints() throws IOException {
    for (String run : runs()) {
      Path file = file(options.resume(), run);
      if (!Files.exists(file)) {
        continue;
      }
      Checkpoint checkpoint = Checkpoint.read(file);
      checkpoint.requireSettings(settings(run));
      if (checkpoint.steps() > steps(run)) {
        throw new IllegalArgumentException(
            "--epochs is %d, but %s is at epoch %d"
                .formatted(options.epochs(), file, checkpoint.steps() / shards.stepsPerEpoch()));
      }
      saved.put(run, checkpoint);
    }
    if (saved.isEmpty()) {
      throw new IOException(
          "%s has no checkpoint: none of %s"
              .formatted(
                  options.resume(),
                  runs().stream()
                      .map(run -> file(options.resume(), run).getFileName().toString())
                      .collect(Collectors.joining(", "))));
    }
  }

  /** What a run's bits depend on. */
  private Map<String, String> settings(String run) {
    Map<String, String> settings = new LinkedHashMap<>();
    settings.put("run", run);
    settings.put("--device", options.gpu() ? "gpu" : "cpu");
    settings.put("--replicas", Integer.toString(options.replicas()));
    settings.put("--batch", Integer.toString(options.batch()));
    settings.put("--seed", Long.toString(options.seed()));
    settings.put("--data of SHA-256", digits.sha256());
    settings.put("libtorch on", Libtorch.of(options.gpu()).where());
    settings.put("channels", Arrays.toString(DigitsNet.CHANNELS));
    settings.put("learning rate", Double.toString(ReplicaTrainer.LEARNING_RATE));
    return settings;
  }

  private int steps(String run) {
    return run.equals(WHOLE) ? Proof.STEPS : steps();
  }

  private int stepsBefore(String run) {
    return saved.containsKey(run) ? saved.get(run).steps() : 0;
  }

  private int steps() {
    return options.epochs() * shards.stepsPerEpoch();
  }

  /**
   * Trains, prints and writes.
   *
   * @return whether the proof did not fail: it holds, or these options leave nothing to be shown,
   *     or it is not this process that would show it
   * @throws java.util.concurrent.CancellationException if the JVM is told to end meanwhile
   */
  public boolean run(PrintWriter out) throws IOException {
    if (!leads()) {
      Libtorch.of(options.gpu()).comparable();
      train();
      return true;
    }
    Files.createDirectories(options.out());
    if (options.checkpoint() != null) {
      Files.createDirectories(options.checkpoint());
    }
    Setting setting = setting();
    setting.libtorch().comparable();
    introduce(out, setting);
    Results results = train();
    TextReport report = new TextReport(out, options, results);
    report.print(shards.stepsPerEpoch());
    Path json =
        AtomicFile.write(
            options.out().resolve("train.json"),
            new JsonReport(options, setting, results).text().getBytes(StandardCharsets.UTF_8));
    Path png =
        AtomicFile.write(options.out().resolve("train.png"), CurvePlot.png(options, results));
    out.printf(Locale.ROOT, "written: %s, %s%n", json, png);
    report.printAccuracy();
    out.flush();
    return results.verdict(options.replicas()) != Verdict.FAILED;
  }

  private Setting setting() {
    return new Setting(
        digits.name(),
        shards.trainingImages(),
        shards.test().length,
        shards.stepsPerEpoch(),
        options.job() == null ? devices() : options.replicas() + " processes, a GPU each",
        Libtorch.of(options.gpu()));
  }

  private String devices() {
    try (ReplicaGroup group = group(options.replicas())) {
      return group.replicas().stream()
              .map(replica -> replica.deviceId())
              .collect(Collectors.joining(", "))
          + " ("
          + group.replica(0).deviceDescription()
          + ")";
    }
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
    saved.forEach((run, from) -> out.printf("resumed: %s at step %d%n", run, from.steps()));
    out.println();
    out.flush();
  }

  private ReplicaGroup group() {
    return options.job() == null ? group(options.replicas()) : ReplicaGroup.fromEnvironment();
  }

  /** In this process. */
  private ReplicaGroup group(int replicas) {
    ReplicaGroup.Builder builder = ReplicaGroup.builder().timeout(TIMEOUT);
    return (options.gpu()
            ? builder.gpus(IntStream.range(0, replicas).toArray())
            : builder.cpus(replicas))
        .build();
  }

  /** All runs; a JVM that is told to end waits until their threads have left native code. */
  private Results train() throws IOException {
    long total = runs().stream().mapToLong(run -> steps(run) - stepsBefore(run)).sum();
    CountDownLatch done = new CountDownLatch(1);
    try (Progress progress =
        leads() ? Progress.of("training", "steps", total) : Progress.hidden()) {
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

  private Results train(Progress progress) throws IOException {
    Plan plan = new Plan(digits, shards::batch, steps(), shards.stepsPerEpoch(), shards.test());
    Plan whole =
        new Plan(
            digits,
            (rank, step) -> shards.wholeBatch(step),
            Proof.STEPS,
            shards.stepsPerEpoch(),
            new int[0]);
    List<String> runs = runs();
    Curves sync = runs.contains(SYNC) ? trainSync(SYNC, this::group, plan, progress) : null;
    Curves one = runs.contains(WHOLE) ? trainSync(WHOLE, () -> group(1), whole, progress) : null;
    Curves local = runs.contains(LOCAL) ? trainLocal(plan, progress) : null;
    return new Results(sync, local, one);
  }

  private Saving saving(String run) {
    Path to = options.checkpoint() == null ? null : file(options.checkpoint(), run);
    return new Saving(saved.get(run), to, settings(run));
  }

  private Curves trainSync(
      String name, Supplier<ReplicaGroup> replicas, Plan plan, Progress progress)
      throws IOException {
    progress.phase(name);
    try (ReplicaGroup group = replicas.get()) {
      Normalizations layers = Normalizations.synchronizedIn(group);
      return TrainingRun.train(group, layers, plan, options.seed(), progress, saving(name));
    }
  }

  private Curves trainLocal(Plan plan, Progress progress) throws IOException {
    progress.phase(LOCAL);
    try (ReplicaGroup group = group(options.replicas())) {
      return TrainingRun.train(
          group, Normalizations.local(), plan, options.seed(), progress, saving(LOCAL));
    }
  }
}
