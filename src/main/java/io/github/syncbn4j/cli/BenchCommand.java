package io.github.syncbn4j.cli;

import io.github.syncbn4j.cli.bench.BenchJob;
import io.github.syncbn4j.cli.bench.Suite;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code syncbn bench}: how long the layer takes, against copies and other implementations. */
@Command(
    name = "bench",
    description = {
      "Times the layer's passes against the fastest copy of x, and checks every result against"
          + " float64. A time whose result is not right is not printed.",
      "",
      "On the CPU with --peers also against libtorch and oneDNN, in turns and with as many threads. A"
          + " sample in which a thread waited for a processor is discarded and taken again: nothing"
          + " else should run meanwhile.",
      "",
      "On GPUs, the first one or as many as there are replicas, times are those of CUDA graphs, from"
          + " the first replica's start to the last one's end; a copy is that of what each GPU has of"
          + " x, on all at once. With --peers PyTorch is timed after them, by scripts/peers, with a"
          + " process for each replica, if SYNCBN_PYTHON (python3) has a torch that sees the GPUs. On"
          + " the simulated node all of it runs with small tensors, and its times mean nothing."
    },
    footer = {
      "",
      "Exit status: 0 if every result was right, 1 if not or if something else"
          + " failed, 2 for wrong usage."
    })
final class BenchCommand implements Callable<Integer> {
  /** By their coordinates, a class of each. */
  private static final Map<String, String> LIBRARIES =
      new TreeMap<>(
          Map.of(
              "org.knowm.xchart:xchart", "org.knowm.xchart.XYChart",
              "me.tongfei:progressbar", "me.tongfei.progressbar.ProgressBar"));

  private static final int MOST_REPLICAS = 64;

  enum Kind {
    cpu,
    gpu
  }

  @Option(
      names = "--device",
      paramLabel = "cpu|gpu",
      defaultValue = "cpu",
      description = "What is timed. Default: cpu.")
  private Kind device;

  @Option(
      names = "--suite",
      paramLabel = "resnet50|small|sweep",
      defaultValue = "resnet50",
      description =
          "resnet50: forward and backward of ResNet-50's 12 shapes at 16 images, from memory."
              + " small: all passes of tensors below 1 MB, in the cache. sweep: all passes of 64x28x28"
              + " at 1 to 256 images, both. Default: resnet50.")
  private Suite suite;

  @Option(
      names = "--replicas",
      paramLabel = "N",
      defaultValue = "1",
      description = "How many replicas share each batch; on GPUs one on each. Default: 1.")
  private int replicas;

  @Option(names = "--peers", description = "Also other implementations, each where it is there.")
  private boolean peers;

  @Option(names = "--json", paramLabel = "FILE", description = "Write the results as JSON.")
  private Path json;

  @Option(
      names = "--plot",
      paramLabel = "DIR",
      description = "Write charts: copies by tensor size, time against each peer.")
  private Path plot;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    OptionalLibraries.require("bench", LIBRARIES);
    if (replicas < 1 || replicas > MOST_REPLICAS) {
      throw usage("--replicas is %d, allowed is 1 to %d".formatted(replicas, MOST_REPLICAS));
    }
    BenchJob job;
    try {
      job =
          new BenchJob(
              new BenchJob.Options(
                  suite,
                  where(),
                  replicas,
                  Runtime.getRuntime().availableProcessors(),
                  peers,
                  json,
                  plot),
              spec.commandLine().getOut());
    } catch (IllegalArgumentException e) {
      throw usage(e.getMessage());
    }
    if (device == Kind.cpu) {
      BenchJob.prepareProcess();
    } else {
      RequiredGpus.require(replicas, spec.commandLine());
    }
    return job.run() ? 0 : 1;
  }

  private BenchJob.Device where() throws IOException {
    if (device == Kind.cpu) {
      return BenchJob.Device.cpu;
    }
    return MappedLibraries.now().simulated() ? BenchJob.Device.simulated : BenchJob.Device.gpu;
  }

  private ParameterException usage(String message) {
    return new ParameterException(spec.commandLine(), message);
  }
}
