package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** {@code syncbn replay} on the simulated node. */
@Tag("sim")
class SimulatedReplayTest extends ReplayContract {
  @BeforeAll
  static void standInsAreMapped() throws IOException {
    CudaRuntime.ensureAvailable();
    MappedLibraries libraries = MappedLibraries.now();
    assertThat(libraries.simulated()).isTrue();
    assertThat(libraries.files("libcudart")).anyMatch(MappedLibraries::isStandIn);
    assertThat(libraries.files("libsyncbn_cuda")).isNotEmpty().allMatch(MappedLibraries::isStandIn);
  }

  @Override
  String device() {
    return "gpu";
  }

  @Override
  String collective() {
    return "ncclAllReduce";
  }

  @Test
  void fewerGpusThanReplicas_isRefused() throws IOException {
    int replicas = CudaRuntime.deviceCount() + 1;
    Path file =
        new EditedRecording("one-example-each")
            .editCase(c -> c.put("replicas", replicas))
            .keep(EditedRecording::isInput)
            .repeatReplica(replicas)
            .write(folder.resolve("wide.safetensors"));
    CommandRun run = replay(file);
    assertThat(run.lines().get(0))
        .isEqualTo(
            "REFUSED one-example-each: replicas is %d, but this process sees %d GPU(s)"
                .formatted(replicas, replicas - 1));
    assertThat(run.status()).isEqualTo(1);
  }
}
