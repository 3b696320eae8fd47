package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Commands with {@code --device gpu} on the simulated node, which has eight. */
@Tag("sim")
class RequiredGpusTest {
  @ParameterizedTest
  @ValueSource(strings = {"train", "bench"})
  void moreReplicasThanGpus_areRefused(String command) {
    CommandRun run = CommandRun.of(command, "--device", "gpu", "--replicas", "9");
    assertThat(run.err())
        .startsWith("syncbn: --replicas is 9, but this process sees 8 GPU(s)")
        .hasLineCount(1);
    assertThat(run.status()).isEqualTo(2);
  }

  @Test
  void refusedBench_leavesNoFile(@TempDir Path folder) {
    Path json = folder.resolve("out.json");
    String file = json.toString();
    CommandRun run = CommandRun.of("bench", "--device", "gpu", "--replicas", "9", "--json", file);
    assertThat(run.status()).isEqualTo(2);
    assertThat(json).doesNotExist();
  }
}
