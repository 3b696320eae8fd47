package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code syncbn train} on the simulated node. */
@Tag("sim")
class SimulatedTrainTest {
  @TempDir Path folder;

  @Test
  void proof_holdsOnSimulatedGpus() {
    CommandRun run =
        CommandRun.of(
            "train",
            "--device",
            "gpu",
            "--norm",
            "sync",
            "--replicas",
            "4",
            "--batch",
            "7",
            "--epochs",
            "1",
            "--out",
            folder.toString());
    assertThat(run.err()).isEmpty();
    assertThat(run.out())
        .contains(
            "normalization on gpu:0, gpu:1, gpu:2, gpu:3 (Simulated GPU); activations and gradients are copied there and back")
        .contains("all else: libtorch, on the host: this libtorch has no CUDA")
        .contains("proof: holds, 4 x 7 images = 1 x 28 with synchronized normalization");
    assertThat(run.status()).isZero();
  }
}
