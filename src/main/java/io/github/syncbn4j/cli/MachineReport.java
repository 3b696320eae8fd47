package io.github.syncbn4j.cli;

import io.github.syncbn4j.device.cpu.CpuRuntime;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/** What is here, where it came from, and why something is missing. */
final class MachineReport {
  private static final String LINE = "%-15s %s%n";

  private static final Path OS_RELEASE = Path.of("/etc/os-release");

  /** Of the kernel's part of NVIDIA's driver. */
  private static final Path DRIVER = Path.of("/sys/module/nvidia/version");

  private final PrintWriter out;

  MachineReport(PrintWriter out) {
    this.out = out;
  }

  /** Loads what can be loaded. */
  void print() throws IOException {
    line("syncbn4j", new BuildInfo().version());
    line(
        "java",
        "%s, %s (%s)"
            .formatted(
                System.getProperty("java.version"),
                System.getProperty("java.vm.name"),
                System.getProperty("java.home")));
    line(
        "system",
        "%s %s, %s, %d processors"
            .formatted(
                System.getProperty("os.name"),
                System.getProperty("os.version"),
                System.getProperty("os.arch"),
                Runtime.getRuntime().availableProcessors()));
    firstLine(OS_RELEASE, "PRETTY_NAME=").ifPresent(name -> line("", name.replace("\"", "")));
    boolean cpu = CpuRuntime.unavailabilityReasons().isEmpty();
    line("cpu kernels", cpu ? CpuRuntime.kernelsBuildInfo() : "not available");
    reasons(CpuRuntime.unavailabilityReasons());
    boolean cuda = CudaRuntime.isAvailable();
    boolean nccl = cuda && Nccl.isAvailable();
    // Loading is done: what is mapped now is what is used.
    MappedLibraries libraries = MappedLibraries.now();
    firstLine(DRIVER, "").ifPresent(version -> line("driver", version + ", " + DRIVER));
    if (cuda) {
      showGpus(libraries.simulated());
      line("nccl", nccl ? "version " + Nccl.version() : "not available");
      reasons(Nccl.unavailabilityReasons());
    } else {
      line("cuda", "not available");
      reasons(CudaRuntime.unavailabilityReasons());
      line("nccl", "not looked for without a GPU");
    }
    for (String name : MappedLibraries.names()) {
      showFiles(name, libraries.files(name));
    }
    out.flush();
  }

  /** One more, as those of {@link #print}. */
  void line(String what, String value) {
    out.printf(LINE, what, Lines.one(value));
  }

  /** Of a file that may not be there: the first line that begins so, without its beginning. */
  private static Optional<String> firstLine(Path file, String beginning) throws IOException {
    if (!Files.isReadable(file)) {
      return Optional.empty();
    }
    return Files.readAllLines(file).stream()
        .filter(line -> line.startsWith(beginning))
        .map(line -> line.substring(beginning.length()))
        .findFirst();
  }

  private void showGpus(boolean simulated) {
    line(
        "cuda",
        "%sruntime %s, driver up to %s"
            .formatted(
                simulated ? "simulated: " : "",
                CudaRuntime.runtimeVersion(),
                CudaRuntime.driverVersion()));
    line("cuda kernels", CudaRuntime.kernelsBuildInfo());
    for (int gpu = 0; gpu < CudaRuntime.deviceCount(); gpu++) {
      line(
          "gpu:" + gpu,
          "%s, compute capability %s%s"
              .formatted(
                  CudaRuntime.deviceName(gpu),
                  CudaRuntime.computeCapability(gpu),
                  simulated ? ", simulated" : ""));
    }
  }

  private void reasons(List<String> reasons) {
    reasons.forEach(reason -> line("", "- " + reason));
  }

  private void showFiles(String name, List<Path> files) {
    if (files.isEmpty()) {
      line(name, "not loaded");
    }
    for (Path file : files) {
      line(name, file + (MappedLibraries.isStandIn(file) ? " (simulated)" : ""));
    }
  }
}
