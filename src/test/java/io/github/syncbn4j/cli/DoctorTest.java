package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code syncbn doctor} on whatever machine this is, and what it looks at. */
class DoctorTest {
  @Test
  void cpu_isTested() {
    CommandRun run = CommandRun.of("doctor", "--device", "cpu", "--seconds", "0");
    assertThat(run.err()).isEmpty();
    assertThat(run.lines()).containsAll(CommandRun.of("info").lines());
    assertThat(run.lines())
        .anyMatch(line -> line.matches("self-test +cpu:0: 1 steps, largest error .*e-0[78] of .*"));
    assertThat(run.lines()).last().asString().matches("troubles +none");
    assertThat(run.status()).isZero();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "x    | Invalid value for option '--seconds': expected a number but was 'x'",
        "NaN  | --seconds is NaN, allowed is 0 to 3600",
        "-1   | --seconds is -1.0, allowed is 0 to 3600",
        "3601 | --seconds is 3601.0, allowed is 0 to 3600",
      })
  void seconds(String value, String reason) {
    CommandRun run = CommandRun.of("doctor", "--seconds", value);
    assertThat(run.err()).startsWith("syncbn: " + reason).hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(2);
  }

  @Test
  void gpuThatIsNotThere_isTrouble_whereOneIsNeeded() {
    assumeFalse(CudaRuntime.isAvailable(), "there is a GPU");
    CommandRun run = CommandRun.of("doctor", "--device", "gpu", "--seconds", "0");
    assertThat(run.err()).isEmpty();
    List<String> reasons = CudaRuntime.unavailabilityReasons();
    assertThat(run.lines().stream().filter(line -> line.startsWith("trouble ")))
        .hasSameSizeAs(reasons)
        .allMatch(line -> line.contains(" -> "));
    for (String reason : reasons) {
      assertThat(run.lines()).anyMatch(line -> line.matches("trouble +\\Q" + reason + "\\E"));
    }
    assertThat(run.lines())
        .anyMatch(line -> line.matches("auto\\(\\) +takes cpu:0, since no GPU can be used: .*"));
    assertThat(run.lines()).last().asString().matches("troubles +" + reasons.size());
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void hardware_isSeenWithoutDriver(@TempDir Path devices) throws IOException {
    assertThat(NvidiaHardware.isIn(devices)).isFalse();
    assertThat(NvidiaHardware.isIn(devices.resolve("no such folder"))).isFalse();
    Files.createDirectory(devices.resolve("0000:00:00.0")); // which says nothing
    pci(devices.resolve("0000:00:01.0"), "0x8086", "0x030000");
    pci(devices.resolve("0000:00:02.0"), "0x10de", "0x068000");
    assertThat(NvidiaHardware.isIn(devices)).as("a bridge of NVIDIA's").isFalse();
    pci(devices.resolve("0000:00:03.0"), "0x10de", "0x030200");
    assertThat(NvidiaHardware.isIn(devices)).isTrue();
  }

  private static void pci(Path device, String vendor, String type) throws IOException {
    Files.createDirectory(device);
    Files.writeString(device.resolve("vendor"), vendor + "\n");
    Files.writeString(device.resolve("class"), type + "\n");
  }

  @Test
  void cachedLibraryOfAnotherBuild_isFound(@TempDir Path cache) throws IOException {
    Path built = Path.of("target/classes/io/github/syncbn4j/device/linux-x86_64");
    Path same = Files.copy(built.resolve("libsyncbn_cpu.so"), cache.resolve("libsyncbn_cpu.so"));
    Path other = cache.resolve("libjnisyncbn_cpu.so");
    byte[] content = Files.readAllBytes(built.resolve(other.getFileName()));
    content[content.length / 2]++;
    Files.write(other, content);
    assertThat(StaleCache.files(mapped(same, other), cache)).containsExactly(other);
    assertThat(StaleCache.files(mapped(same, other), built)).as("not in the cache").isEmpty();
  }

  private static MappedLibraries mapped(Path... files) {
    return MappedLibraries.of(
        Stream.of(files).map(file -> "1-2 r-xp 0 fe:00 1 " + file.toAbsolutePath()).toList());
  }
}
