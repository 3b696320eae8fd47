package io.github.syncbn4j.build;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.concurrent.TimeUnit;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Scripts that are called wrongly: exit status 2, as that of the commands, and what is wrong. */
class WrongUsageTest {
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "scripts/syncbn run              | syncbn: run needs a .java file: none is named",
        "scripts/syncbn run README.md    | syncbn: run needs a .java file: README.md",
        "scripts/gpu-bundle              | gpu-bundle: no DIR is named",
        "scripts/gpu-bundle pom.xml      | gpu-bundle: pom.xml is not a directory",
        "scripts/gpu-bundle docs         | gpu-bundle: docs is not empty",
        "scripts/gpu-bundle a --arch sm90| gpu-bundle: --arch is a number such as 90, not sm90",
        "scripts/gpu-bundle --fast       | gpu-bundle: unknown option --fast",
        "scripts/gpu-verify --fast       | gpu-verify: unknown argument --fast",
        "scripts/gpu-verify --only       | gpu-verify: --only needs a value",
      })
  void status2_andTheReason(String command, String reason) throws Exception {
    ProcessBuilder builder = new ProcessBuilder(command.split(" +"));
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    Process process = builder.redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
    assertThat(process.errorReader().lines()).last().isEqualTo(reason);
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    assertThat(process.exitValue()).isEqualTo(2);
  }
}
