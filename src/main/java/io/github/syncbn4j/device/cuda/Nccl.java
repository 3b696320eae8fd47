package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.NativeLibrary;
import io.github.syncbn4j.device.Remedy;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.cuda.global.nccl;
import org.bytedeco.cuda.nccl.ncclComm;
import org.bytedeco.cuda.nccl.ncclConfig_t;
import org.bytedeco.javacpp.BytePointer;

/** Whether NCCL can be used here, its version, and its errors. Needed for two GPUs or more. */
public final class Nccl {
  /** NCCL's first release for CUDA 13. */
  private static final int OLDEST = 22700;

  private static final class Probe {
    static final List<String> REASONS = new ArrayList<>();
    static final Throwable CAUSE;
    static final int VERSION;

    static {
      int[] version = new int[1];
      CAUSE = NativeLibrary.load(nccl.class, "NCCL", REASONS);
      if (REASONS.isEmpty()) {
        int result = nccl.ncclGetVersion(version);
        if (result != nccl.ncclSuccess) {
          REASONS.add(
              Remedy.with("ncclGetVersion failed with %d: %s".formatted(result, text(result))));
        } else if (version[0] < OLDEST) {
          REASONS.add(
              Remedy.with(
                  "ncclGetVersion: libnccl.so.2 is version %s, needed is %s or newer"
                      .formatted(dotted(version[0]), dotted(OLDEST))));
        }
      }
      VERSION = version[0];
    }
  }

  private Nccl() {}

  public static boolean isAvailable() {
    return unavailabilityReasons().isEmpty();
  }

  /** Why NCCL cannot be used: one entry a reason, with CUDA's own where that is missing. */
  public static List<String> unavailabilityReasons() {
    return CudaRuntime.isAvailable()
        ? List.copyOf(Probe.REASONS)
        : CudaRuntime.unavailabilityReasons();
  }

  static void ensureAvailable() {
    CudaRuntime.ensureAvailable();
    if (!Probe.REASONS.isEmpty()) {
      throw new DeviceUnavailableException(
          "several GPUs cannot be used together", Probe.REASONS, Probe.CAUSE);
    }
  }

  /** Version of libnccl.so.2 as in {@code 2.30.7}. */
  public static String version() {
    ensureAvailable();
    return dotted(Probe.VERSION);
  }

  private static String dotted(int version) {
    return version / 10000 + "." + version / 100 % 100 + "." + version % 100;
  }

  /**
   * NCCL_CONFIG_INITIALIZER with {@code blocking = 1}. JavaCPP's struct comes all zero, which NCCL
   * refuses: every field that is not chosen has to say "undefined".
   */
  static ncclConfig_t blockingConfig() {
    int undefined = Integer.MIN_VALUE; // NCCL_CONFIG_UNDEF_INT, which the presets do not map
    ncclConfig_t config = new ncclConfig_t();
    return config
        .size(config.sizeof())
        .magic(nccl.NCCL_API_MAGIC)
        .version(nccl.NCCL_VERSION_CODE)
        .blocking(1)
        .cgaClusterSize(undefined)
        .minCTAs(undefined)
        .maxCTAs(undefined)
        .netName((BytePointer) null)
        .splitShare(undefined)
        .trafficClass(undefined)
        .commName((BytePointer) null)
        .collnetEnable(undefined)
        .CTAPolicy(undefined)
        .shrinkShare(undefined)
        .nvlsCTAs(undefined)
        .nChannelsPerNetPeer(undefined)
        .nvlinkCentricSched(undefined)
        .graphUsageMode(undefined)
        .numRmaCtx(undefined);
  }

  /**
   * @param communicator whose last error text is added; may be null
   */
  static void check(String device, int result, String call, ncclComm communicator) {
    if (result != nccl.ncclSuccess) {
      try (BytePointer detail = nccl.ncclGetLastError(communicator)) {
        String text = detail == null || detail.isNull() ? "" : detail.getString().strip();
        throw new DeviceException(
            device, call, result, text.isEmpty() ? text(result) : text(result) + ": " + text);
      }
    }
  }

  private static String text(int result) {
    try (BytePointer name = nccl.ncclGetErrorString(result)) {
      return name.getString();
    }
  }
}
