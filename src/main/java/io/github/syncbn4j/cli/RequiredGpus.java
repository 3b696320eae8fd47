package io.github.syncbn4j.cli;

import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import picocli.CommandLine;
import picocli.CommandLine.ParameterException;

/** A GPU for each of a command's {@code --replicas}. */
final class RequiredGpus {
  private RequiredGpus() {}

  /**
   * @throws DeviceUnavailableException with the reasons, if no GPU can be used
   * @throws ParameterException if there are fewer GPUs than replicas
   */
  static void require(int replicas, CommandLine commandLine) {
    try {
      CudaRuntime.ensureAvailable();
    } catch (DeviceUnavailableException e) {
      throw new DeviceUnavailableException(
          "no GPU can be used (SYNCBN_SIM_DEVICES=%d simulates as many)".formatted(replicas),
          e.reasons(),
          e);
    }
    if (replicas > CudaRuntime.deviceCount()) {
      throw new ParameterException(
          commandLine,
          "--replicas is %d, but this process sees %d GPU(s)"
              .formatted(replicas, CudaRuntime.deviceCount()));
    }
  }
}
