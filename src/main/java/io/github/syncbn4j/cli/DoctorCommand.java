package io.github.syncbn4j.cli;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.Remedy;
import io.github.syncbn4j.device.cpu.CpuRuntime;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.Loader;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code syncbn doctor}: what a maintainer asks for, a test of every device, and what to mend. */
@Command(
    name = "doctor",
    description = {
      "Shows what info shows, which devices auto() takes and the variables that matter, tests every device, and says what to do about each trouble.",
      "Paste its output where you ask for help."
    },
    footer = {"", "Exit status: 0 without trouble, 1 with trouble, 2 for wrong usage."})
final class DoctorCommand implements Callable<Integer> {
  enum Needed {
    auto,
    cpu,
    gpu
  }

  /** For replicas to wait for each other: far above what they take, NCCL's start included. */
  private static final Duration TIMEOUT = Duration.ofMinutes(1);

  private static final int MOST_SECONDS = 3600;

  private static final String AUTO = "auto()";

  /** The mend of a trouble that has none. */
  private static final String UNKNOWN = " -> report it with all of this output";

  /** How many GPUs the simulated node has: see native/sim/node.cpp. */
  private static final String SIMULATED = "SYNCBN_SIM_DEVICES";

  private static final Path PCI = Path.of("/sys/bus/pci/devices");

  private static final List<String> VARIABLES =
      List.of(
          "CUDA_",
          "NVIDIA_VISIBLE_DEVICES",
          "NVIDIA_DRIVER_CAPABILITIES",
          "NCCL_",
          "SYNCBN_",
          "LD_LIBRARY_PATH",
          "LD_PRELOAD",
          "JAVA_TOOL_OPTIONS",
          "JDK_JAVA_OPTIONS",
          "RANK",
          "WORLD_SIZE",
          "LOCAL_RANK",
          "LOCAL_WORLD_SIZE",
          "MASTER_",
          "OMPI_COMM_WORLD_",
          "SLURM_PROCID",
          "SLURM_NTASKS",
          "SLURM_LOCALID",
          "SLURM_STEP_NODELIST",
          "SLURM_JOB_NODELIST",
          "SLURM_NODELIST");

  private static final List<String> PROPERTIES =
      List.of("org.bytedeco.javacpp.", "syncbn.", "java.library.path");

  @Option(
      names = "--device",
      paramLabel = "auto|cpu|gpu",
      defaultValue = "auto",
      description =
          "What has to work: CPU replicas, or GPUs as well. Default: auto, GPUs where the machine has one.")
  private Needed needed;

  @Option(
      names = "--seconds",
      paramLabel = "S",
      defaultValue = "2",
      description = "How long all tests take together, at least a step each. Default: 2.")
  private double seconds;

  @Spec private CommandSpec spec;

  private final List<String> troubles = new ArrayList<>();
  private MachineReport report;

  @Override
  public Integer call() throws IOException {
    if (!(seconds >= 0 && seconds <= MOST_SECONDS)) { // nor NaN
      throw new ParameterException(
          spec.commandLine(),
          "--seconds is %s, allowed is 0 to %d".formatted(seconds, MOST_SECONDS));
    }
    PrintWriter out = spec.commandLine().getOut();
    report = new MachineReport(out);
    report.print();
    boolean gpusNeeded = needed == Needed.gpu || needed == Needed.auto && NvidiaHardware.isIn(PCI);
    troubles.addAll(CpuRuntime.unavailabilityReasons());
    if (gpusNeeded) {
      troubles.addAll(CudaRuntime.unavailabilityReasons());
    }
    if (needed != Needed.cpu && CudaRuntime.deviceCount() > 1) {
      troubles.addAll(Nccl.unavailabilityReasons());
    }
    lookAtTheSimulatedNode();
    lookIntoTheCache();
    showSettings("variable", System.getenv(), VARIABLES);
    Map<String, String> properties =
        System.getProperties().stringPropertyNames().stream()
            .collect(Collectors.toMap(name -> name, System::getProperty));
    showSettings("property", properties, PROPERTIES);
    if (CpuRuntime.unavailabilityReasons().isEmpty()) {
      testDevices();
    } else {
      report.line("self-test", "not run without the CPU kernels, which GPUs need too");
      report.line(AUTO, "takes nothing, since the CPU cannot be used: see cpu kernels above");
    }
    for (String trouble : troubles) {
      report.line("trouble", trouble + (trouble.contains(" -> ") ? "" : UNKNOWN));
    }
    report.line("troubles", troubles.isEmpty() ? "none" : String.valueOf(troubles.size()));
    out.flush();
    return troubles.isEmpty() ? 0 : 1;
  }

  /** It is asked for GPUs and has none, which it says on the standard error alone. */
  private void lookAtTheSimulatedNode() {
    String devices = System.getenv(SIMULATED);
    if (needed != Needed.cpu
        && devices != null
        && !devices.matches("0*")
        && CudaRuntime.unavailabilityReasons().stream()
            .anyMatch(reason -> reason.contains("cudaErrorNoDevice"))) {
      troubles.add("%s=%s simulates no GPU -> set it to 1 to 32".formatted(SIMULATED, devices));
    }
  }

  private void lookIntoTheCache() {
    try {
      for (Path file : StaleCache.files(MappedLibraries.now(), Loader.getCacheDir().toPath())) {
        troubles.add(file + " is not what is in the jar -> remove it: JavaCPP copies it again");
      }
    } catch (IOException e) {
      troubles.add(Remedy.with(Lines.message(e)));
    }
  }

  private void showSettings(String kind, Map<String, String> all, List<String> beginnings) {
    new TreeMap<>(all)
        .forEach(
            (name, value) -> {
              if (beginnings.stream().anyMatch(name::startsWith)) {
                report.line(kind, name + "=" + value);
              }
            });
  }

  /** The kernels on the host are there. */
  private void testDevices() {
    int gpus = needed == Needed.cpu ? 0 : CudaRuntime.deviceCount();
    Duration each = Duration.ofNanos((long) (seconds * 1e9 / (2 + gpus)));
    test("cpu:0", ReplicaGroup.builder().cpus(1), each);
    for (int gpu = 0; gpu < gpus; gpu++) {
      test("gpu:" + gpu, ReplicaGroup.builder().gpus(gpu), each);
    }
    if (needed != Needed.cpu) {
      test(AUTO, ReplicaGroup.builder().auto(), each);
    }
  }

  private void test(String what, ReplicaGroup.Builder builder, Duration time) {
    try (ReplicaGroup group = builder.timeout(TIMEOUT).build()) {
      if (what.equals(AUTO)) {
        String devices =
            group.replicas().stream().map(Replica::deviceId).collect(Collectors.joining(", "));
        report.line(AUTO, "takes " + devices + whyNoMore());
      }
      SelfTest.Outcome outcome = SelfTest.run(group, time);
      report.line("self-test", what + ": " + outcome);
      if (!outcome.isRight()) {
        troubles.add(Remedy.with(what + " computes wrong numbers: " + outcome));
      }
    } catch (RuntimeException e) {
      report.line("self-test", what + ": failed");
      troubles.add(Remedy.with(what + ": " + Lines.message(e)));
    }
  }

  private static String whyNoMore() {
    if (!CudaRuntime.isAvailable()) {
      return ", since no GPU can be used: see cuda above";
    }
    boolean several = CudaRuntime.deviceCount() > 1;
    return several && !Nccl.isAvailable()
        ? ", since several GPUs cannot be used together: see nccl above"
        : ": all GPUs";
  }
}
