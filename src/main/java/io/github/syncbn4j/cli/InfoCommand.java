package io.github.syncbn4j.cli;

import io.github.syncbn4j.device.cpu.CpuDeviceGroup;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code syncbn info}: what is here, where it came from, and why something is missing. */
@Command(
    name = "info",
    description =
        "Shows version, devices, libraries and where they came from, and why something is missing.")
final class InfoCommand implements Callable<Integer> {
  private static final String LINE = "%-15s %s%n";

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    PrintWriter out = spec.commandLine().getOut();
    out.printf(LINE, "syncbn4j", new BuildInfo().version());
    out.printf(
        LINE,
        "java",
        "%s, %s (%s)"
            .formatted(
                System.getProperty("java.version"),
                System.getProperty("java.vm.name"),
                System.getProperty("java.home")));
    out.printf(
        LINE,
        "system",
        "%s %s, %s, %d processors"
            .formatted(
                System.getProperty("os.name"),
                System.getProperty("os.version"),
                System.getProperty("os.arch"),
                Runtime.getRuntime().availableProcessors()));
    out.printf(LINE, "cpu kernels", CpuDeviceGroup.buildInfo());
    boolean cuda = CudaRuntime.isAvailable();
    boolean nccl = cuda && Nccl.isAvailable();
    // Loading is done: what is mapped now is what is used.
    MappedLibraries libraries = MappedLibraries.now();
    if (cuda) {
      showGpus(out, libraries.simulated());
      out.printf(LINE, "nccl", nccl ? "version " + Nccl.version() : "not available");
      reasons(out, Nccl.unavailabilityReasons());
    } else {
      out.printf(LINE, "cuda", "not available");
      reasons(out, CudaRuntime.unavailabilityReasons());
      out.printf(LINE, "nccl", "not looked for without a GPU");
    }
    for (String name : MappedLibraries.names()) {
      showFiles(out, name, libraries.files(name));
    }
    out.flush();
    return 0;
  }

  private static void showGpus(PrintWriter out, boolean simulated) {
    out.printf(
        LINE,
        "cuda",
        "%sruntime %s, driver up to %s"
            .formatted(
                simulated ? "simulated: " : "",
                CudaRuntime.runtimeVersion(),
                CudaRuntime.driverVersion()));
    out.printf(LINE, "cuda kernels", CudaRuntime.kernelsBuildInfo());
    for (int gpu = 0; gpu < CudaRuntime.deviceCount(); gpu++) {
      out.printf(
          LINE,
          "gpu:" + gpu,
          "%s, compute capability %s%s"
              .formatted(
                  CudaRuntime.deviceName(gpu),
                  CudaRuntime.computeCapability(gpu),
                  simulated ? ", simulated" : ""));
    }
  }

  private static void reasons(PrintWriter out, List<String> reasons) {
    reasons.forEach(reason -> out.printf(LINE, "", "- " + Lines.one(reason)));
  }

  private static void showFiles(PrintWriter out, String name, List<Path> files) {
    if (files.isEmpty()) {
      out.printf(LINE, name, "not loaded");
    }
    for (Path file : files) {
      out.printf(LINE, name, file + (MappedLibraries.isStandIn(file) ? " (simulated)" : ""));
    }
  }
}
