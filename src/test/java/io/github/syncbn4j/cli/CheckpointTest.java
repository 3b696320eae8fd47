package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What {@code syncbn train} does not resume, and a checkpoint that cannot be written. */
class CheckpointTest {
  /** An epoch of 2 replicas x 14 images. */
  private static byte[] whole;

  @TempDir static Path shared;
  @TempDir Path folder;

  @BeforeAll
  static void save() throws IOException {
    assertThat(train(shared, "--checkpoint", shared.toString()).status()).isZero();
    whole = Files.readAllBytes(shared.resolve("sync.pt"));
  }

  /**
   * @param more options, also instead of the usual ones
   */
  private static CommandRun train(Path out, String... more) {
    List<String> arguments = new ArrayList<>(List.of("train", "--norm=sync"));
    for (String usual : List.of("--replicas=2", "--batch=14", "--epochs=1")) {
      String name = usual.substring(0, usual.indexOf('=') + 1);
      if (Arrays.stream(more).noneMatch(option -> option.startsWith(name))) {
        arguments.add(usual);
      }
    }
    arguments.add("--out=" + out.resolve("out"));
    arguments.addAll(List.of(more));
    return CommandRun.of(arguments.toArray(String[]::new));
  }

  private void requireRefused(int status, String reason, Path resume, String... more) {
    List<String> arguments = new ArrayList<>(List.of(more));
    arguments.addAll(List.of("--resume", resume.toString()));
    CommandRun run = train(folder, arguments.toArray(String[]::new));
    assertThat(run.err()).startsWith("syncbn: ").contains(reason).hasLineCount(1);
    assertThat(run.out()).isEmpty();
    assertThat(run.status()).isEqualTo(status);
    assertThat(folder.resolve("out")).doesNotExist();
  }

  private void requireDamaged(byte[] content, String reason) throws IOException {
    Path file = Files.write(folder.resolve("sync.pt"), content);
    requireRefused(1, file + " is no checkpoint, or is damaged: " + reason, folder);
  }

  @ParameterizedTest
  @CsvSource({
    "--batch=7, --batch 14, 7",
    "--seed=2, --seed 1, 2",
    "--replicas=1 --batch=28, --replicas 2, 1",
  })
  void otherSettings_areRefusedWithBothValues(String options, String saved, String now) {
    requireRefused(
        2,
        "%s was saved with %s, not %s".formatted(shared.resolve("sync.pt"), saved, now),
        shared,
        options.split(" "));
  }

  @Test
  void otherImages_areRefused() throws IOException {
    Path data = Files.write(folder.resolve("digits.csv"), rows());
    requireRefused(
        2, "sync.pt was saved with --data of SHA-256 ", shared, "--data", data.toString());
  }

  private static List<String> rows() {
    List<String> rows = new ArrayList<>();
    for (int i = 0; i < 1797; i++) {
      rows.add("0,".repeat(64) + i % 10);
    }
    return rows;
  }

  @Test
  void anotherRunsFile_isRefused() throws IOException {
    Files.copy(shared.resolve("1-replica.pt"), folder.resolve("sync.pt"));
    requireRefused(2, "sync.pt was saved with run 1 replica, not sync", folder);
  }

  @Test
  void moreEpochsThanAskedFor_areRefused() {
    assertThat(train(folder, "--epochs=2", "--checkpoint", folder.resolve("two").toString()).err())
        .isEmpty();
    CommandRun run = train(folder, "--resume", folder.resolve("two").toString());
    assertThat(run.err())
        .contains(
            "--epochs is 1, but " + folder.resolve("two").resolve("sync.pt") + " is at epoch 2")
        .hasLineCount(1);
    assertThat(run.status()).isEqualTo(2);
  }

  @Test
  void folderWithout_isRefused() {
    requireRefused(1, folder + " has no checkpoint: none of sync.pt, 1-replica.pt", folder);
  }

  @Test
  void anyByteThatChanged_isFound() throws IOException {
    List<String> lines = train(folder, "--resume", shared.toString()).lines();
    String undamaged = lines.get(lines.size() - 1);
    int refused = 0;
    for (int at = 0; at < whole.length; at += whole.length / 50) {
      byte[] damaged = whole.clone();
      damaged[at] ^= 0x10;
      Files.write(folder.resolve("sync.pt"), damaged);
      CommandRun run = train(folder, "--resume", folder.toString());
      if (run.status() == 0) { // a byte between the archive's entries, which means nothing
        assertThat(run.lines()).as("byte %d", at).endsWith(undamaged);
      } else {
        assertThat(run.err())
            .as("byte %d", at)
            .contains("sync.pt is no checkpoint, or is damaged: ")
            .hasLineCount(1);
        refused++;
      }
    }
    assertThat(refused).isGreaterThan(25);
  }

  @Test
  void partOfAFile_isRefused() throws IOException {
    requireDamaged(Arrays.copyOf(whole, whole.length / 2), "zip END header not found");
    requireDamaged(new byte[0], "");
  }

  @Test
  void foreignFile_isRefused() throws IOException {
    requireDamaged("{}".getBytes(), "");
    Path zip = folder.resolve("sync.pt");
    try (OutputStream out = Files.newOutputStream(zip);
        ZipOutputStream entries = new ZipOutputStream(out)) {
      entries.putNextEntry(new ZipEntry("holiday.jpg"));
    }
    requireDamaged(Files.readAllBytes(zip), "");
  }

  @Test
  void checkpointThatCannotBeWritten_isNamed() {
    CommandRun run = train(folder, "--checkpoint", "/sys");
    assertThat(run.err()).startsWith("syncbn: /sys/sync.pt cannot be written: ").hasLineCount(1);
    assertThat(run.status()).isEqualTo(1);
  }
}
