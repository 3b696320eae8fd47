package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.state.ConvertedFiles;
import io.github.syncbn4j.state.Safetensors;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code syncbn convert}: what it prints and writes, and what it refuses. */
class ConvertTest {
  @TempDir Path folder;
  private Path out;

  @BeforeEach
  void name() {
    out = folder.resolve("out.safetensors");
  }

  private static CommandRun convert(Path in, Path out, String... options) {
    String[] arguments = new String[options.length + 3];
    arguments[0] = "convert";
    arguments[1] = in.toString();
    arguments[2] = out.toString();
    System.arraycopy(options, 0, arguments, 3, options.length);
    return CommandRun.of(arguments);
  }

  private void requireRefused(int status, String reason, CommandRun run) {
    assertThat(run.err()).startsWith("syncbn: ").contains(reason).hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(status);
  }

  @Test
  void pytorchToKeras_saysWhatItDid_andBackGivesTheSameTensors() throws IOException {
    Path module = ConvertedFiles.file("module.safetensors");
    CommandRun run = convert(module, out, "--from", "pytorch", "--to", "keras");
    assertThat(run.err()).isEmpty();
    assertThat(run.lines())
        .containsExactly(
            out + ": 2 batch norm(s) from pytorch to keras, 2 other tensor(s) as they were",
            "  1: momentum 0.8, epsilon 1e-05",
            "  2",
            "build the layers with these options: loading does not set them",
            "running variances as they were (pytorch's are n / (n - 1) times keras's: --elements N converts them)");
    Path back = folder.resolve("back.safetensors");
    assertThat(convert(out, back, "--from", "keras", "--to", "pytorch").status()).isZero();
    Safetensors before = Safetensors.read(module);
    Safetensors after = Safetensors.read(back);
    assertThat(after.tensors().keySet()).hasSameElementsAs(before.tensors().keySet());
    before
        .tensors()
        .forEach(
            (name, tensor) -> {
              assertThat(after.tensors().get(name)).hasToString(tensor.toString());
              assertThat(after.tensors().get(name).data()).as(name).isEqualTo(tensor.data());
            });
  }

  @Test
  void kerasModel_isRecognized_andGetsOurNames() throws IOException {
    CommandRun run = convert(ConvertedFiles.file("model.keras"), out);
    assertThat(run.lines())
        .containsExactly(
            out + ": 3 batch norm(s) from keras to syncbn4j, 0 other tensor(s) as they were",
            "  first: momentum 0.9, epsilon 1.0E-5",
            "  no_scale: momentum 0.99, epsilon 0.001",
            "  neither: momentum 0.99, epsilon 0.001",
            "build the layers with these options: loading does not set them");
    assertThat(Safetensors.read(out).tensors()).containsKeys("first.gamma", "neither.moving_mean");
    assertThat(convert(ConvertedFiles.file("model.keras"), out, "--overwrite", "--to=djl").lines())
        .contains("  added, as djl always has it: no_scale_gamma");
    assertThat(convert(out, folder.resolve("k.safetensors"), "--to=keras", "--elements=32").lines())
        .contains("running variances converted for n = 32");
    assertThat(
            convert(out, folder.resolve("d.safetensors"), "--to=pytorch", "--elements=9").lines())
        .contains("running variances as they were: they are of pytorch's kind");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "--elements=1 | --elements is 1, a variance needs 2 or more",
        "--elements=abc | Invalid value for option '--elements': expected a whole number below 2^63 but was 'abc'",
        "--to=tensorflow | expected one of [syncbn4j, keras, pytorch, djl] but was 'tensorflow'",
        "--from | Missing required parameter for option '--from'",
      })
  void options(String option, String reason) {
    requireRefused(
        2, reason, convert(ConvertedFiles.file("module.safetensors"), out, option.strip()));
    assertThat(out).doesNotExist();
  }

  @Test
  void outThatIsThere_isIn_orIsOfAnotherKind_isRefused() throws IOException {
    Path in =
        Files.copy(ConvertedFiles.file("module.safetensors"), folder.resolve("in.safetensors"));
    Files.createSymbolicLink(folder.resolve("link.safetensors"), in);
    byte[] before = Files.readAllBytes(in);
    for (String name : new String[] {"in.safetensors", "link.safetensors"}) {
      requireRefused(2, "OUT is IN: ", convert(in, folder.resolve(name), "--overwrite"));
    }
    Files.write(out, new byte[] {1});
    requireRefused(2, out + " is there already: --overwrite replaces it", convert(in, out));
    assertThat(out).hasBinaryContent(new byte[] {1});
    requireRefused(
        2, "OUT must end in .safetensors", convert(in, folder.resolve("out.weights.h5")));
    Path directory = Files.createDirectories(folder.resolve("d.safetensors"));
    requireRefused(2, "OUT is a directory", convert(in, directory, "--overwrite"));
    Path nowhere = folder.resolve("no").resolve("out.safetensors");
    requireRefused(
        1, nowhere + " cannot be written: its folder does not exist", convert(in, nowhere));
    requireRefused(
        1,
        "/sys/out.safetensors cannot be written: ",
        convert(in, Path.of("/sys/out.safetensors")));
    assertThat(in).hasBinaryContent(before);
    assertThat(folder.toFile().list()).hasSize(4);
  }

  @Test
  void inThatIsNotThere_damaged_orHasNone_isRefused() throws IOException {
    Path in = folder.resolve("in.weights.h5");
    requireRefused(1, in + ": no such file", convert(in, out));
    byte[] whole = Files.readAllBytes(ConvertedFiles.file("net.weights.h5"));
    Files.write(in, java.util.Arrays.copyOf(whole, whole.length / 2));
    requireRefused(
        1,
        in + ": HDF5 of %d bytes, cut to %d".formatted(whole.length, whole.length / 2),
        convert(in, out));
    Files.write(in, "hello, world".getBytes());
    requireRefused(1, in + ": header of", convert(in, out));
    requireRefused(
        1,
        "no batch normalization under djl's names (runningMean, runningVar)",
        convert(ConvertedFiles.file("module.safetensors"), out, "--from=djl"));
    assertThat(out).doesNotExist();
  }

  @Test
  void readmesCommands_run() throws IOException {
    Files.copy(ConvertedFiles.file("model.keras"), folder.resolve("model.keras"));
    List<String> commands =
        Files.readString(Path.of("README.md"))
            .lines()
            .filter(line -> line.startsWith("    scripts/syncbn convert "))
            .toList();
    assertThat(commands).hasSizeGreaterThan(1);
    for (String command : commands) {
      List<String> words = List.of(command.replaceFirst("#.*", "").strip().split(" +"));
      CommandRun run =
          CommandRun.of(
              words.stream()
                  .skip(1)
                  .map(word -> word.contains(".") ? folder.resolve(word).toString() : word)
                  .toArray(String[]::new));
      assertThat(run.err()).as(command).isEmpty();
      assertThat(run.status()).as(command).isZero();
    }
  }
}
