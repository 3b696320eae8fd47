package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/** {@code syncbn info} on whatever machine this is. */
class InfoTest {
  @Test
  void info_namesWhatIsHere() {
    CommandRun run = CommandRun.of("info");
    assertThat(run.err()).isEmpty();
    assertThat(run.status()).isZero();
    assertThat(value(run, "syncbn4j"))
        .matches("\\d+\\.\\d+\\.\\d+(-SNAPSHOT)?( \\(commit \\w+\\))?");
    assertThat(value(run, "java")).startsWith(System.getProperty("java.version"));
    assertThat(value(run, "system")).startsWith("Linux ");
    assertThat(value(run, "cpu kernels")).contains("g++");
    assertThat(Path.of(value(run, "libsyncbn_cpu"))).isAbsolute().isRegularFile();
  }

  @Test
  void info_saysWhyThereIsNoGpu_orNamesIt() {
    CommandRun run = CommandRun.of("info");
    if (CudaRuntime.isAvailable()) {
      assertThat(value(run, "cuda"))
          .matches("(simulated: )?runtime \\d+\\.\\d+, driver up to \\d+\\.\\d+");
      assertThat(value(run, "gpu:0")).contains("compute capability");
      assertThat(Path.of(value(run, "libcuda").replace(" (simulated)", ""))).isRegularFile();
    } else {
      assertThat(value(run, "cuda")).isEqualTo("not available");
      assertThat(CudaRuntime.unavailabilityReasons()).isNotEmpty();
      CudaRuntime.unavailabilityReasons()
          .forEach(
              reason -> assertThat(run.lines()).anyMatch(line -> line.endsWith("- " + reason)));
    }
  }

  @Test
  void version_isThatOfInfo() {
    assertThat(CommandRun.of("--version").out().strip())
        .isEqualTo("syncbn4j " + value(CommandRun.of("info"), "syncbn4j"));
  }

  @Test
  void gpuReplay_withoutGpu_saysWhy() {
    assumeFalse(CudaRuntime.isAvailable(), "there is a GPU");
    CommandRun run =
        CommandRun.of("replay", "--device", "gpu", ReplayContract.golden("no-scale").toString());
    assertThat(run.status()).isEqualTo(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.err().lines()).hasSize(1);
    assertThat(run.err())
        .startsWith("syncbn: no GPU can be used: ")
        .contains(CudaRuntime.unavailabilityReasons());
    assertThat(
            CommandRun.of(
                    "replay",
                    "--verbose",
                    "--device",
                    "gpu",
                    ReplayContract.golden("no-scale").toString())
                .err())
        .contains("\tat io.github.syncbn4j");
  }

  @Test
  void mappedLibraries_areFoundByName() {
    MappedLibraries libraries =
        MappedLibraries.of(
            List.of(
                "7f00-7f01 r--p 00000000 fe:00 12 /opt/a b/libcudart.so.13",
                "7f01-7f02 r-xp 00001000 fe:00 12                    /opt/a b/libcudart.so.13",
                "7f02-7f03 r-xp 00001000 fe:00 13 /w/target/native/sim/libcuda.so.1",
                "7f03-7f04 r-xp 00001000 fe:00 14 /usr/lib/libnccl.so.2.30.7 (deleted)",
                "7f04-7f05 rw-p 00000000 00:00 0 [heap]",
                "7f05-7f06 rw-p 00000000 00:00 0 "));
    assertThat(libraries.files("libcudart")).containsExactly(Path.of("/opt/a b/libcudart.so.13"));
    assertThat(libraries.files("libcuda"))
        .containsExactly(Path.of("/w/target/native/sim/libcuda.so.1"));
    assertThat(libraries.files("libnccl")).hasSize(1);
    assertThat(libraries.files("libsyncbn_cpu")).isEmpty();
    assertThat(libraries.simulated()).isTrue();
    assertThat(MappedLibraries.of(List.of("1-2 r 0 0 0 /usr/lib/libcuda.so.1")).simulated())
        .isFalse();
  }

  private static String value(CommandRun run, String key) {
    return run.lines().stream()
        .filter(line -> line.startsWith(key + " "))
        .map(line -> line.substring(key.length()).strip())
        .findFirst()
        .orElseThrow(() -> new AssertionError("no line " + key + " in:\n" + run.out()));
  }
}
