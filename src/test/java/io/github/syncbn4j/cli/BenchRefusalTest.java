package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What {@code syncbn bench} does not run: one line that names the option and the value. */
class BenchRefusalTest {
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "--replicas 0     | --replicas is 0, allowed is 1 to 64",
        "--replicas 65    | --replicas is 65, allowed is 1 to 64",
        "--replicas 17    | --replicas is 17, but this suite has batches of 16 image(s)",
        "--suite resnet18 | expected one of [resnet50, small, sweep] (case-sensitive) but was 'resnet18'",
        "--device tpu     | expected one of [cpu, gpu] (case-sensitive) but was 'tpu'",
        "--device gpu --suite sweep --replicas 2 | --replicas is 2, but this suite has batches of 1 image(s)",
        "--json           | Missing required parameter for option '--json' (FILE)",
      })
  void options(String arguments, String reason) {
    CommandRun run = CommandRun.of(("bench " + arguments.strip()).split(" "));
    assertThat(run.err()).startsWith("syncbn: ").contains(reason.strip()).hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(2);
  }

  @Test
  void fileThatCannotBeWritten_isRefusedBeforeAnythingIsMeasured(@TempDir Path folder) {
    Path file = folder.resolve("absent").resolve("out.json");
    CommandRun run = CommandRun.of("bench", "--json", file.toString());
    assertThat(run.err())
        .startsWith("syncbn: %s: no such file or folder".formatted(file))
        .hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void resultsOfBefore_stayWhereNothingIsMeasured(@TempDir Path folder) throws IOException {
    Path file = Files.writeString(folder.resolve("out.json"), "before");
    CommandRun run = CommandRun.of("bench", "--json", file.toString(), "--plot", file.toString());
    assertThat(run.err()).startsWith("syncbn: %s: is there already".formatted(file));
    assertThat(file).hasContent("before");
  }
}
