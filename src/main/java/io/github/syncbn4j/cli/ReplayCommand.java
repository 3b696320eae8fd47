package io.github.syncbn4j.cli;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.SafetensorsException;
import io.github.syncbn4j.state.StoredTensor;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code syncbn replay}: runs recordings again and compares. */
@Command(
    name = "replay",
    description = {
      "Runs recorded runs of batch-normalization layers on as many replicas as recorded, and"
          + " compares.",
      "",
      "Prints a line a file: ok or FAIL with the worst error as a fraction of the tolerance and its"
          + " tensor; ran, for a file of inputs only, where there is nothing to compare; REFUSED"
          + " with the reason, for a file that is damaged or outside what is supported. The last"
          + " line, 'N of M cases within tolerance', counts all files but those that merely ran.",
      "",
      "Config keys are those of Keras' get_config, and running_variance, activation and"
          + " adjustment."
    },
    footer = {
      "",
      "Exit status: 0 if nothing failed, 1 if a case failed or was refused, 2 for wrong usage."
    })
final class ReplayCommand implements Callable<Integer> {
  /** For replicas to wait for each other: far above what any step of a recording takes. */
  private static final Duration TIMEOUT = Duration.ofMinutes(1);

  private static final String SUFFIX = ".safetensors";

  enum Kind {
    cpu,
    gpu
  }

  private enum Outcome {
    OK("ok"),
    FAILED("FAIL"),
    RAN("ran"),
    REFUSED("REFUSED");

    private final String label;

    Outcome(String label) {
      this.label = label;
    }
  }

  private record Verdict(Outcome outcome, String name, String text) {
    String line() {
      return outcome == Outcome.REFUSED
          ? Lines.one("REFUSED %s: %s".formatted(name, text))
          : Lines.one("%-4s %s  %s".formatted(outcome.label, name, text));
    }
  }

  @Option(
      names = "--device",
      paramLabel = "cpu|gpu",
      defaultValue = "cpu",
      description = "Where the replicas are: CPU replicas, or GPUs 0, 1, ... Default: cpu.")
  private Kind device;

  @Option(names = "--trace", description = "List kernel launches and collective calls by device.")
  private boolean trace;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      description =
          "Write all that the layer produced to DIR/<the same file name>, under the recording's"
              + " names of tensors.")
  private Path out;

  @Parameters(paramLabel = "FILE", arity = "1..*", description = "Replay files (syncbn-replay/1).")
  private List<Path> files;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    PrintWriter stdout = spec.commandLine().getOut();
    if (out != null) {
      prepareOut();
    }
    if (device == Kind.gpu) {
      CudaRuntime.ensureAvailable();
    }
    int within = 0;
    int counted = 0;
    for (Path file : files) {
      Verdict verdict = replay(file, stdout);
      stdout.println(verdict.line());
      stdout.flush();
      within += verdict.outcome() == Outcome.OK ? 1 : 0;
      counted += verdict.outcome() == Outcome.RAN ? 0 : 1;
    }
    stdout.printf("%d of %d cases within tolerance%n", within, counted);
    stdout.flush();
    return within == counted ? 0 : 1;
  }

  private void prepareOut() throws IOException {
    Files.createDirectories(out);
    Set<Path> targets = new HashSet<>();
    for (Path file : files) {
      Path target = target(file);
      if (!targets.add(target)) {
        throw new ParameterException(
            spec.commandLine(),
            "two files are named " + target.getFileName() + ": --out would keep one");
      }
      if (Files.exists(target) && Files.exists(file) && Files.isSameFile(target, file)) {
        throw new ParameterException(
            spec.commandLine(), "--out would replace the recording " + file);
      }
    }
  }

  private Path target(Path file) {
    return out.resolve(String.valueOf(file.toAbsolutePath().getFileName()));
  }

  private Verdict replay(Path file, PrintWriter stdout) throws IOException {
    String name = String.valueOf(file.toAbsolutePath().getFileName());
    if (name.endsWith(SUFFIX)) {
      name = name.substring(0, name.length() - SUFFIX.length());
    }
    Recording recording;
    try {
      recording = Recording.of(Safetensors.read(file));
      if (!recording.recorded().name().isEmpty()) {
        name = Lines.shortened(recording.recorded().name());
      }
      requireGpus(recording.recorded().replicas());
    } catch (SafetensorsException e) {
      return new Verdict(Outcome.REFUSED, name, e.problem());
    } catch (IOException e) {
      return new Verdict(Outcome.REFUSED, name, "cannot be read: " + Lines.message(e));
    } catch (RefusedException e) {
      return new Verdict(Outcome.REFUSED, name, e.getMessage());
    }
    Map<String, StoredTensor> produced;
    try {
      produced = run(recording, name, stdout);
    } catch (IllegalArgumentException | DeviceUnavailableException e) {
      return new Verdict(Outcome.REFUSED, name, e.getMessage());
    } catch (DeviceException | CollectiveException | Replay.DivergedException e) {
      return new Verdict(Outcome.FAILED, name, e.getMessage());
    } catch (OutOfMemoryError e) {
      return new Verdict(Outcome.FAILED, name, "out of memory: " + e.getMessage());
    }
    if (out != null) {
      Safetensors.write(target(file), produced, recording.metadata());
    }
    if (recording.expected().isEmpty()) {
      return new Verdict(Outcome.RAN, name, "nothing to compare");
    }
    Comparison comparison = Comparison.of(recording, produced);
    return new Verdict(comparison.within() ? Outcome.OK : Outcome.FAILED, name, comparison.text());
  }

  private void requireGpus(int replicas) throws RefusedException {
    if (device == Kind.gpu && replicas > CudaRuntime.deviceCount()) {
      throw new RefusedException(
          "replicas is %d, but this process sees %d GPU(s)"
              .formatted(replicas, CudaRuntime.deviceCount()));
    }
  }

  private Map<String, StoredTensor> run(Recording recording, String name, PrintWriter stdout) {
    int replicas = recording.recorded().replicas();
    ReplicaGroup.Builder builder = ReplicaGroup.builder().timeout(TIMEOUT);
    if (device == Kind.gpu) {
      builder.gpus(IntStream.range(0, replicas).toArray());
    } else {
      builder.cpus(replicas);
    }
    if (trace) {
      stdout.println(Lines.one(name));
      builder.trace(line -> stdout.println("    " + line));
    }
    try (ReplicaGroup group = builder.build()) {
      return Replay.run(
          recording,
          group,
          heading -> {
            if (trace) {
              stdout.println("  " + heading);
            }
          });
    }
  }
}
