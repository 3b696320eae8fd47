package io.github.syncbn4j.gpu;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/**
 * Prints what the library finds on this machine as {@code key=value} lines, for scripts/gpu-verify.
 * Ends with status 1, and the reasons as {@code missing=} lines, where no GPU can be used.
 */
final class GpuFacts {
  private GpuFacts() {}

  public static void main(String[] args) throws IOException {
    fact("java", System.getProperty("java.version"));
    if (!CudaRuntime.isAvailable()) {
      CudaRuntime.unavailabilityReasons().forEach(reason -> fact("missing", reason));
      System.exit(1);
    }
    fact("gpus", CudaRuntime.deviceCount());
    fact("gpu", CudaRuntime.deviceName(0));
    fact("compute_capability", CudaRuntime.computeCapability(0));
    fact("cuda_runtime", CudaRuntime.runtimeVersion());
    fact("cuda_driver", CudaRuntime.driverVersion());
    fact("kernels", CudaRuntime.kernelsBuildInfo());
    if (Nccl.isAvailable()) {
      fact("nccl", Nccl.version());
    } else {
      Nccl.unavailabilityReasons().forEach(reason -> fact("nccl_missing", reason));
    }
    try (Stream<String> mappings = Files.lines(Path.of("/proc/self/maps"))) {
      mappings
          .map(line -> line.substring(line.indexOf('/') + 1))
          .filter(path -> path.matches(".*/lib(cuda|cudart|nccl|syncbn_cuda)\\.so.*"))
          .distinct()
          .forEach(path -> fact("library", "/" + path));
    }
  }

  private static void fact(String key, Object value) {
    System.out.println(key + "=" + String.valueOf(value).replace('\n', ' '));
  }
}
