package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.NativeLibrary;
import io.github.syncbn4j.device.Remedy;
import io.github.syncbn4j.device.natives.CudaKernels;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;

/**
 * The one door to CUDA: whether it can be used here, and if not, every reason.
 *
 * <p>The presets' native part needs libcuda.so.1, so touching them on a machine without a driver
 * fails at class loading. Only classes of this package do, and only after {@link
 * #ensureAvailable()}.
 */
public final class CudaRuntime {
  private static final int NAME_LENGTH = 256;

  /** The kernels and the presets are of CUDA 13. */
  private static final int OLDEST = 13000;

  /** Probes once; what a failed load leaves behind in the JVM cannot be undone. */
  private static final class Probe {
    static final List<String> REASONS = new ArrayList<>();
    static final Throwable CAUSE;
    static final int DEVICES;

    static {
      int devices = 0;
      Throwable kernels = NativeLibrary.load(CudaKernels.class, "the GPU kernels", REASONS);
      if (REASONS.isEmpty()) {
        int abi = CudaKernels.syncbn_cuda_abi_version();
        if (abi != CudaKernels.SYNCBN_ABI_VERSION) {
          add(
              "libsyncbn_cuda.so has ABI version %d, needed is %d"
                  .formatted(abi, CudaKernels.SYNCBN_ABI_VERSION));
        }
      }
      int before = REASONS.size();
      Throwable runtime = NativeLibrary.load(cudart.class, "the CUDA runtime", REASONS);
      if (REASONS.size() == before) {
        int[] value = new int[1];
        int error = cudart.cudaRuntimeGetVersion(value);
        requireVersion("cudaRuntimeGetVersion", error, "libcudart.so.13 is version", value[0]);
        error = cudart.cudaDriverGetVersion(value);
        requireVersion("cudaDriverGetVersion", error, "the driver supports CUDA", value[0]);
        error = cudart.cudaGetDeviceCount(value);
        if (error != cudart.cudaSuccess) {
          add("cudaGetDeviceCount failed with " + describe(error));
        } else if (value[0] == 0) {
          add("the CUDA driver sees no GPU");
        } else {
          devices = value[0];
        }
      }
      CAUSE = kernels == null ? runtime : kernels;
      DEVICES = devices;
    }

    private static void add(String trouble) {
      REASONS.add(Remedy.with(trouble));
    }

    private static void requireVersion(String call, int error, String what, int version) {
      if (error != cudart.cudaSuccess) {
        add(call + " failed with " + describe(error));
      } else if (version < OLDEST) {
        add(
            "%s: %s %s, needed is %s or newer"
                .formatted(call, what, dotted(version), dotted(OLDEST)));
      }
    }
  }

  private CudaRuntime() {}

  /** Whether kernels, runtime, driver and at least one GPU are there. */
  public static boolean isAvailable() {
    return Probe.REASONS.isEmpty();
  }

  /** Why not, and what to do about it: one entry a reason; empty where available. */
  public static List<String> unavailabilityReasons() {
    return List.copyOf(Probe.REASONS);
  }

  /**
   * @throws DeviceUnavailableException with every reason
   */
  public static void ensureAvailable() {
    ensureAvailable("no GPU can be used");
  }

  /**
   * @param what is not possible without one
   * @throws DeviceUnavailableException with every reason
   */
  public static void ensureAvailable(String what) {
    if (!isAvailable()) {
      throw new DeviceUnavailableException(what, Probe.REASONS, Probe.CAUSE);
    }
  }

  /** GPUs that the driver shows to this process. 0 where CUDA is not available. */
  public static int deviceCount() {
    return isAvailable() ? Probe.DEVICES : 0;
  }

  /** The model of a GPU, as the driver names it. */
  public static String deviceName(int ordinal) {
    ensureAvailable();
    byte[] name = new byte[NAME_LENGTH];
    int error = cudart.cuDeviceGetName(name, NAME_LENGTH, ordinal);
    if (error != cudart.CUDA_SUCCESS) {
      try (BytePointer text = new BytePointer()) {
        cudart.cuGetErrorString(error, text);
        throw new DeviceException(
            "gpu:" + ordinal,
            "cuDeviceGetName",
            error,
            text.isNull() ? "unknown error" : text.getString());
      }
    }
    int end = 0;
    while (end < NAME_LENGTH && name[end] != 0) {
      end++;
    }
    return new String(name, 0, end, StandardCharsets.UTF_8);
  }

  /** Compute capability as in {@code 9.0}. */
  public static String computeCapability(int ordinal) {
    ensureAvailable();
    return attribute(ordinal, cudart.cudaDevAttrComputeCapabilityMajor)
        + "."
        + attribute(ordinal, cudart.cudaDevAttrComputeCapabilityMinor);
  }

  /** Version of libcudart as in {@code 13.0}. */
  public static String runtimeVersion() {
    ensureAvailable();
    int[] version = new int[1];
    check("cuda", cudart.cudaRuntimeGetVersion(version), "cudaRuntimeGetVersion");
    return dotted(version[0]);
  }

  /** Newest CUDA version that the driver supports, as in {@code 13.0}. */
  public static String driverVersion() {
    ensureAvailable();
    int[] version = new int[1];
    check("cuda", cudart.cudaDriverGetVersion(version), "cudaDriverGetVersion");
    return dotted(version[0]);
  }

  /** Compiler and architectures of libsyncbn_cuda.so. */
  public static String kernelsBuildInfo() {
    ensureAvailable();
    return CudaKernels.syncbn_cuda_build_info().getString();
  }

  private static int attribute(int ordinal, int attribute) {
    int[] value = new int[1];
    check(
        "gpu:" + ordinal,
        cudart.cudaDeviceGetAttribute(value, attribute, ordinal),
        "cudaDeviceGetAttribute");
    return value[0];
  }

  private static String dotted(int version) {
    return version / 1000 + "." + version % 1000 / 10;
  }

  static void check(String device, int error, String call) {
    if (error != cudart.cudaSuccess) {
      throw new DeviceException(device, call, error, describe(error));
    }
  }

  static String describe(int error) {
    try (BytePointer name = cudart.cudaGetErrorName(error);
        BytePointer text = cudart.cudaGetErrorString(error)) {
      return name.getString() + " (" + text.getString() + ")";
    }
  }
}
