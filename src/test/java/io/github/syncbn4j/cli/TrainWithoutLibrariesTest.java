package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The command line where what only some commands need is not on the class path. */
class TrainWithoutLibrariesTest {
  private static final List<String> LIBRARIES =
      List.of("pytorch", "openblas", "xchart", "progressbar", "jline", "jhdf");

  private record Ended(int status, String output) {}

  private static Ended syncbn(String... arguments) throws IOException, InterruptedException {
    return run(Syncbn.class, LIBRARIES, arguments);
  }

  private static Ended run(Class<?> main, List<String> without, String... arguments)
      throws IOException, InterruptedException {
    String classPath =
        Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
            .filter(
                entry ->
                    without.stream().noneMatch(Path.of(entry).getFileName().toString()::startsWith))
            .collect(Collectors.joining(File.pathSeparator));
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                classPath,
                main.getName()));
    command.addAll(List.of(arguments));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes());
    return new Ended(process.waitFor(), output);
  }

  @Test
  void replay_works() throws IOException, InterruptedException {
    Ended ended = syncbn("replay", "src/test/resources/replay/dense-2-replicas.safetensors");
    assertThat(ended.output()).contains("1 of 1 cases within tolerance");
    assertThat(ended.status()).isZero();
  }

  /** As {@code java -jar} starts the jar. */
  @Test
  void jarAlone_saysWhatHasTheLibraries() throws IOException, InterruptedException {
    Ended alone = run(Main.class, List.of("picocli"), "--version");
    assertThat(alone.output()).startsWith("syncbn: ").contains("scripts/syncbn").hasLineCount(1);
    assertThat(alone.status()).isEqualTo(1);
    Ended whole = run(Main.class, List.of("jhdf"), "--version");
    assertThat(whole.output()).contains(new BuildInfo().version());
    assertThat(whole.status()).isZero();
  }

  @Test
  void train_saysWhatIsMissing() throws IOException, InterruptedException {
    Ended ended = syncbn("train");
    assertThat(ended.output().strip())
        .isEqualTo(
            "syncbn: NoClassDefFoundError: train needs me.tongfei:progressbar on the class path");
    assertThat(ended.status()).isEqualTo(1);
  }

  @Test
  void convert_saysWhatKerasFilesNeed(@TempDir Path folder)
      throws IOException, InterruptedException {
    String file = "src/test/resources/convert/model.keras";
    Ended ended = syncbn("convert", file, folder.resolve("out.safetensors").toString());
    assertThat(ended.output().strip())
        .isEqualTo("syncbn: " + file + ": Keras' files need io.jhdf:jhdf on the class path");
    assertThat(ended.status()).isEqualTo(1);
  }
}
