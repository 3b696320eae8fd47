package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.faults.Installation;
import io.github.syncbn4j.faults.Stub;
import io.github.syncbn4j.sim.SimNode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code syncbn doctor} on the simulated node. */
@Tag("sim")
class SimulatedDoctorTest {
  @Test
  void everyGpu_isTested_aloneAndWithTheOthers() {
    CommandRun run = doctor();
    assertThat(run.err()).isEmpty();
    for (int gpu = 0; gpu < CudaRuntime.deviceCount(); gpu++) {
      String beginning = "self-test +gpu:" + gpu + ": 1 steps, largest error ";
      assertThat(run.lines()).anyMatch(line -> line.matches(beginning + ".*"));
    }
    assertThat(run.lines()).anyMatch(line -> line.matches("auto\\(\\) +takes gpu:0, .*: all GPUs"));
    assertThat(run.lines())
        .anyMatch(line -> line.matches("self-test +auto\\(\\): 1 steps, largest error .*"));
    assertThat(run.lines()).anyMatch(line -> line.matches("variable +SYNCBN_SIM_DEVICES=\\d+"));
    assertThat(run.lines()).last().asString().matches("troubles +none");
    assertThat(run.status()).isZero();
  }

  @Test
  void gpuOnWhichNoKernelStarts_isTroubleWithItsMend() {
    Map<Integer, String> mends =
        Map.of(
            209, "cudaErrorNoKernelImageForDevice\\) -> build for this GPU with -Prelease or .*",
            222, "cudaErrorUnsupportedPtxVersion\\) -> install NVIDIA's driver 580 or newer",
            46, "cudaErrorDevicesUnavailable\\) -> end the process that has the GPU to itself, .*",
            719, "cudaErrorLaunchFailure\\) -> sudo dmesg .*",
            1, "cudaErrorInvalidValue\\) -> report it with all of this output");
    mends.forEach(
        (code, mend) -> {
          SimNode.fail("cudaLaunchKernelExC", 1, code);
          CommandRun run = doctor();
          List<String> troubles =
              run.lines().stream().filter(line -> line.startsWith("trouble ")).toList();
          assertThat(troubles).hasSize(1);
          assertThat(troubles.get(0)).matches("trouble +gpu:0: .*" + mend);
          assertThat(run.lines()).anyMatch(line -> line.matches("self-test +gpu:0: failed"));
          assertThat(run.status()).isEqualTo(1);
        });
  }

  @Test
  void gpusThatComputeWrongNumbers_areTroubleWithItsMend(@TempDir Path folder) throws Exception {
    String idle = Stub.idle("cuda", folder) + ":" + System.getenv("LD_PRELOAD");
    Installation.Run run =
        simulated(folder, "2")
            .variable("LD_PRELOAD", idle)
            .run(Syncbn.class, "doctor", "--device", "gpu", "--seconds", "0");
    String wrong = " computes wrong numbers: 1 steps, largest error .* -> use another GPU: .*";
    assertThat(run.lines().stream().filter(line -> line.startsWith("trouble ")))
        .hasSize(3)
        .anyMatch(line -> line.matches("trouble +gpu:0" + wrong))
        .anyMatch(line -> line.matches("trouble +gpu:1" + wrong))
        .anyMatch(line -> line.matches("trouble +auto\\(\\)" + wrong));
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void moreGpusThanTheNodeAllows_areTroubleWithItsMend(@TempDir Path folder) throws Exception {
    Installation.Run run =
        simulated(folder, "33").run(Syncbn.class, "doctor", "--device", "auto", "--seconds", "0");
    assertThat(run.lines().stream().filter(line -> line.startsWith("trouble ")))
        .hasSize(1)
        .allMatch(
            line ->
                line.matches(
                    "trouble +SYNCBN_SIM_DEVICES=33 simulates no GPU -> set it to 1 to 32"));
    assertThat(run.status()).isEqualTo(1);
  }

  private static Installation simulated(Path folder, String devices) throws IOException {
    return new Installation(folder)
        .with("libsyncbn_cpu.so", "libjnisyncbn_cpu.so", "libjnisyncbn_cuda.so")
        .option("-Dorg.bytedeco.javacpp.pathsFirst=true")
        .option("-Djava.library.path=" + System.getProperty("syncbn.sim.dir"))
        .variable("SYNCBN_SIM_DEVICES", devices);
  }

  private static CommandRun doctor() {
    return CommandRun.of("doctor", "--device", "gpu", "--seconds", "0");
  }
}
