package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** {@code syncbn info} on the simulated node: nobody may take it for a real one. */
@Tag("sim")
class SimulatedInfoTest {
  @Test
  void info_saysSimulated() {
    CommandRun run = CommandRun.of("info");
    assertThat(run.status()).isZero();
    assertThat(run.lines()).anyMatch(line -> line.matches("cuda +simulated: runtime .*"));
    assertThat(run.lines().stream().filter(line -> line.matches("gpu:\\d+ .*, simulated")))
        .hasSize(CudaRuntime.deviceCount());
    assertThat(run.lines()).anyMatch(line -> line.matches("nccl +version [\\d.]+"));
    for (String name : MappedLibraries.names()) {
      if (!name.equals("libsyncbn_cpu")) {
        assertThat(run.lines()).anyMatch(line -> line.matches(name + " +/.* \\(simulated\\)"));
      }
    }
  }
}
