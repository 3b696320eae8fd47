package io.github.syncbn4j.device.cpu;

import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.NativeLibrary;
import io.github.syncbn4j.device.Remedy;
import io.github.syncbn4j.device.natives.CpuKernels;
import java.util.ArrayList;
import java.util.List;

/** Whether the kernels on the host can be used, and if not, why. */
public final class CpuRuntime {
  /** Probes once; what a failed load leaves behind in the JVM cannot be undone. */
  private static final class Probe {
    static final List<String> REASONS = new ArrayList<>();
    static final Throwable CAUSE = NativeLibrary.load(CpuKernels.class, "the CPU kernels", REASONS);

    static {
      int abi = REASONS.isEmpty() ? CpuKernels.syncbn_cpu_abi_version() : 0;
      if (REASONS.isEmpty() && abi != CpuKernels.SYNCBN_ABI_VERSION) {
        REASONS.add(
            Remedy.with(
                "libsyncbn_cpu.so has ABI version %d, needed is %d"
                    .formatted(abi, CpuKernels.SYNCBN_ABI_VERSION)));
      }
    }
  }

  private CpuRuntime() {}

  /** Why not, and what to do about it: one entry a reason; empty where available. */
  public static List<String> unavailabilityReasons() {
    return List.copyOf(Probe.REASONS);
  }

  /**
   * @throws DeviceUnavailableException with every reason
   */
  public static void ensureAvailable() {
    if (!Probe.REASONS.isEmpty()) {
      throw new DeviceUnavailableException("the CPU cannot be used", Probe.REASONS, Probe.CAUSE);
    }
  }

  /** Compiler and instruction sets of libsyncbn_cpu.so. */
  public static String kernelsBuildInfo() {
    ensureAvailable();
    return CpuKernels.syncbn_cpu_build_info().getString();
  }
}
