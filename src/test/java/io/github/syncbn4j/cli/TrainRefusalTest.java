package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.stream.Stream;
import java.util.zip.GZIPOutputStream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** What {@code syncbn train} does not run: one line that names the option or the value. */
class TrainRefusalTest {
  private static final String ROW = "0,".repeat(64) + "3";

  @TempDir Path folder;

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "--replicas 0    | --replicas is 0, allowed is 1 to 64",
        "--replicas 65   | --replicas is 65, allowed is 1 to 64",
        "--replicas four | Invalid value for option '--replicas': expected a whole number below 2^31 but was 'four'",
        "--epochs 9999999999 | Invalid value for option '--epochs': expected a whole number below 2^31 but was '9999999999'",
        "--batch 0       | --batch is 0, allowed is 1 to",
        "--batch 351     | --batch is 351, but each of 4 replicas has 350 image(s) to train with",
        "--batch 1       | --batch is 1, which per-replica normalization cannot train with",
        "--batch 1 --replicas 1 --norm sync | --batch and --replicas are 1: one image",
        "--epochs -1     | --epochs is -1, allowed is 1 to 10000",
        "--batch 32 --epochs 4 | --epochs is 4, which makes 40 steps, but the proof needs 50",
        "--norm none     | expected one of [sync, local, both] (case-sensitive) but was 'none'",
        "--device tpu    | expected one of [cpu, gpu] (case-sensitive) but was 'tpu'",
        "--seed x        | Invalid value for option '--seed': expected a whole number below 2^63 but was 'x'",
        "digits.csv      | Unmatched argument at index 3: 'digits.csv'",
      })
  void options(String arguments, String reason) {
    CommandRun run = train(arguments.strip().split(" "));
    assertThat(run.err()).startsWith("syncbn: ").contains(reason.strip()).hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(2);
    assertThat(folder).isEmptyDirectory();
  }

  static Stream<Arguments> files() {
    return Stream.of(
        Arguments.of(
            "line 2 has 64 value(s), a row has 64 pixels and a class", row(ROW.substring(2))),
        Arguments.of("line 2 has 66 value(s)", row("0," + ROW)),
        Arguments.of("line 2 is blank", row("")),
        Arguments.of(
            "line 2: pixel 0 must be an integer from 0 to 16, not \"17\"",
            row("17" + ROW.substring(1))),
        Arguments.of(
            "line 2: pixel 0 must be an integer from 0 to 16, not \"-1\"",
            row("-1" + ROW.substring(1))),
        Arguments.of(
            "line 2: pixel 0 must be an integer from 0 to 16, not \"0.5\"",
            row("0.5" + ROW.substring(1))),
        Arguments.of(
            "line 2: pixel 0 must be an integer from 0 to 16, not \"12345678901234567890...\"",
            row("1234567890".repeat(3) + ROW.substring(1))),
        Arguments.of(
            "line 2: the class must be an integer from 0 to 9, not \"10\"",
            row("0,".repeat(64) + "10")),
        Arguments.of(
            "line 2: the class must be an integer from 0 to 9, not \"\"", row("0,".repeat(64))),
        Arguments.of(
            "line 2: pixel 0 must be an integer from 0 to 16, not \"\\u001b[2J\"",
            row("\u001b[2J" + ROW.substring(1))));
  }

  private static List<String> row(String row) {
    return List.of(ROW, row, ROW);
  }

  @ParameterizedTest
  @MethodSource("files")
  void damagedRow(String reason, List<String> rows) throws IOException {
    Path file = Files.write(folder.resolve("digits.csv"), rows);
    requireRefused(1, file + " " + reason, file);
  }

  @Test
  void damagedRowOfACompressedFile() throws IOException {
    Path file = folder.resolve("digits.csv.gz");
    try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(file))) {
      out.write((ROW + "\n1,2\n").getBytes());
    }
    requireRefused(1, file + " line 2 has 2 value(s)", file);
  }

  @Test
  void brokenCompression() throws IOException {
    Path file = Files.write(folder.resolve("digits.csv.gz"), new byte[] {0x1f, (byte) 0x8b, 1, 2});
    requireRefused(1, file + ": ", file);
  }

  /** Editors leave them. What is refused here is what comes after the rows. */
  @Test
  void blankLinesAtTheEnd_areNothing() throws IOException {
    Path file = Files.write(folder.resolve("digits.csv"), List.of(ROW, ROW, "", " "));
    requireRefused(2, "--batch is 4, but each of 4 replicas has 0 image(s) to train with", file);
  }

  @Test
  void noGpu_namesTheSimulatedOnes() {
    Assumptions.assumeFalse(CudaRuntime.isAvailable(), "this machine has a GPU");
    CommandRun run = train("--device", "gpu");
    assertThat(run.err())
        .startsWith("syncbn: no GPU can be used (SYNCBN_SIM_DEVICES=4 simulates as many): ")
        .hasLineCount(1);
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void noFile() {
    Path file = folder.resolve("absent.csv");
    requireRefused(1, file + ": no such file or folder", file);
  }

  @Test
  void folderForAFile() {
    requireRefused(1, folder.toString(), folder);
  }

  @Test
  void emptyFile() throws IOException {
    Path file = Files.createFile(folder.resolve("digits.csv"));
    requireRefused(2, "--batch is 4, but each of 4 replicas has 0 image(s) to train with", file);
  }

  @Test
  void fewImages() throws IOException {
    Path file = Files.write(folder.resolve("digits.csv"), Collections.nCopies(20, ROW));
    requireRefused(2, "--batch is 5, but each of 4 replicas has 4 image(s)", file, "--batch", "5");
    requireRefused(2, "--epochs is 8, which makes 8 steps, but the proof needs 50", file);
  }

  @Test
  void outThatIsAFile() throws IOException {
    Path file = Files.createFile(folder.resolve("occupied"));
    CommandRun run = CommandRun.of("train", "--out", file.toString());
    assertThat(run.err())
        .startsWith("syncbn: %s: is there already, and is no folder".formatted(file))
        .hasLineCount(1);
    assertThat(run.status()).isEqualTo(1);
  }

  private void requireRefused(int status, String reason, Path data, String... more) {
    List<String> arguments = new ArrayList<>(List.of("--data", data.toString()));
    arguments.addAll(List.of(more));
    CommandRun run = train(arguments.toArray(String[]::new));
    assertThat(run.err()).startsWith("syncbn: ").contains(reason).hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(status);
  }

  private CommandRun train(String... arguments) {
    List<String> all = new ArrayList<>(List.of("train", "--out", folder.resolve("out").toString()));
    all.addAll(List.of(arguments));
    return CommandRun.of(all.toArray(String[]::new));
  }
}
