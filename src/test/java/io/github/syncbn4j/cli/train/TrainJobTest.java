package io.github.syncbn4j.cli.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.syncbn4j.cli.output.Charts;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What training shows. */
class TrainJobTest {
  /** One run with both normalizations, which most tests look at. */
  private static Run both;

  @TempDir static Path sharedFolder;
  @TempDir Path folder;

  record Run(boolean passed, List<String> lines, JsonNode json, Path folder) {
    static Run of(int epochs, boolean local, long seed, Path data, Path folder) throws IOException {
      return of(4, epochs, local, seed, data, folder);
    }

    static Run of(int replicas, int epochs, boolean local, long seed, Path data, Path folder)
        throws IOException {
      StringWriter text = new StringWriter();
      TrainJob.Options options =
          new TrainJob.Options(
              null, false, replicas, 4, epochs, true, local, seed, data, folder, null, null,
              "test");
      boolean passed = new TrainJob(options).run(new PrintWriter(text));
      JsonNode json = new ObjectMapper().readTree(folder.resolve("train.json").toFile());
      return new Run(passed, text.toString().lines().toList(), json, folder);
    }

    double loss(String run, int step) {
      JsonNode losses =
          run.equals("whole") ? json.get("whole_batch_loss") : json.at("/" + run + "/loss_by_step");
      return losses.get(step).doubleValue();
    }

    double accuracy(String run) {
      return json.at("/" + run + "/test_accuracy").doubleValue();
    }
  }

  @BeforeAll
  static void train() throws IOException {
    both = Run.of(2, true, 7, null, sharedFolder);
  }

  @Test
  void synchronizedNormalization_isOneReplicaWithTheWholeBatch_stepByStep() {
    for (int step = 0; step < 50; step++) {
      assertThat(both.loss("sync", step))
          .as("loss of step %d", step + 1)
          .isCloseTo(both.loss("whole", step), within(1e-4));
    }
  }

  @Test
  void synchronizedNormalization_halvesTheLossIn50Steps() {
    assertThat(meanOfSteps45To50("sync")).isLessThan(both.loss("sync", 0) / 2);
  }

  @Test
  void normalizationPerReplica_doesNeither() {
    assertThat(meanOfSteps45To50("local")).isGreaterThan(both.loss("local", 0) / 2);
    assertThat(Math.abs(both.loss("local", 0) - both.loss("whole", 0))).isGreaterThan(1e-2);
  }

  private static double meanOfSteps45To50(String run) {
    return Stream.of(45, 46, 47, 48, 49)
        .mapToDouble(step -> both.loss(run, step))
        .average()
        .orElseThrow();
  }

  @Test
  void synchronizedNormalization_recognizesDigits_normalizationPerReplicaHardly() {
    assertThat(both.accuracy("sync")).isGreaterThanOrEqualTo(0.95);
    assertThat(both.accuracy("local")).isLessThan(0.6);
  }

  @Test
  void output_endsWithTheAccuracies() {
    assertThat(both.passed()).isTrue();
    assertThat(both.lines()).anyMatch(line -> line.contains("seed 7"));
    assertThat(both.lines())
        .anyMatch(line -> line.startsWith("proof: holds, 4 x 4 images = 1 x 16"));
    assertThat(both.lines().get(both.lines().size() - 1))
        .matches("test accuracy: sync (0\\.9\\d\\d|1\\.000), local 0\\.\\d\\d\\d");
  }

  @Test
  void json_hasEveryNumber() {
    JsonNode json = both.json();
    assertThat(json.get("format").textValue()).isEqualTo("syncbn-train/1");
    assertThat(json.get("proof_holds").booleanValue()).isTrue();
    assertThat(json.get("proof").textValue()).isEqualTo("holds");
    assertThat(json.get("libtorch_on").textValue()).isEqualTo("the host");
    assertThat(json.get("libtorch_because").textValue()).isEqualTo("the replicas are on the CPU");
    assertThat(json.get("seed").intValue()).isEqualTo(7);
    assertThat(json.get("training_images").intValue()).isEqualTo(1400);
    assertThat(json.get("test_images").intValue()).isEqualTo(397);
    assertThat(json.get("whole_batch_loss")).hasSize(50);
    for (String run : List.of("sync", "local")) {
      assertThat(json.at("/" + run + "/loss_by_step")).hasSize(2 * 87);
      assertThat(json.at("/" + run + "/test_accuracy_by_epoch")).hasSize(2);
      assertThat(json.at("/" + run + "/first_steps/distance_from_whole_batch").isNumber()).isTrue();
    }
  }

  @Test
  void picture_isTwoCharts() throws IOException {
    Path file = both.folder().resolve("train.png");
    assertThat(Files.size(file)).isBetween(10_000L, 500_000L);
    BufferedImage image = ImageIO.read(file.toFile());
    assertThat(image.getWidth()).isEqualTo(2 * Charts.WIDTH);
    assertThat(image.getHeight()).isEqualTo(Charts.HEIGHT);
    assertThat(image.getRGB(0, 0)).as("background").isEqualTo(0xFFFFFFFF);
    try (Stream<Path> files = Files.list(both.folder())) {
      assertThat(files.map(each -> each.getFileName().toString()))
          .containsExactlyInAnyOrder("train.json", "train.png");
    }
  }

  @Test
  void permutedLabels_leaveChance() throws IOException {
    Path data = PermutedDigits.write(folder.resolve("permuted.csv"), 11);
    Run run = Run.of(2, false, 7, data, folder.resolve("out"));
    assertThat(run.accuracy("sync")).isBetween(0.03, 0.2);
    assertThat(run.passed()).as("halving the loss").isFalse();
    assertThat(run.json().at("/sync/first_steps/is_whole_batch").booleanValue()).isTrue();
    assertThat(run.lines())
        .contains(
            "proof: FAILED, the loss with synchronized normalization did not halve, nor did that of 1 x 16 images");
  }

  @Test
  void oneReplica_leavesNothingToBeShown() throws IOException {
    Run run = Run.of(1, 1, true, 1, null, folder);
    assertThat(run.lines())
        .contains("proof: none, one replica has the whole batch: take --replicas 4 or more");
    assertThat(run.json().get("proof").textValue()).isEqualTo("too few replicas");
    assertThat(run.json().get("proof_holds").booleanValue()).isFalse();
    assertThat(run.passed()).isTrue();
  }

  @Test
  void twoReplicas_areTheWholeBatch_butSeeTooFewClasses() throws IOException {
    Run run = Run.of(2, 1, true, 1, null, folder);
    assertThat(run.lines())
        .contains(
            "proof: half, 2 x 4 images = 1 x 8 with synchronized normalization, but its steps see too few classes for the loss to halve: take --replicas 4 or more");
    assertThat(run.json().at("/sync/first_steps/is_whole_batch").booleanValue()).isTrue();
    assertThat(run.json().get("proof").textValue()).isEqualTo("too few replicas");
    assertThat(run.passed()).isTrue();
  }

  @Test
  void sameSeed_givesTheSameBits() throws IOException {
    Run again = Run.of(2, false, 7, null, folder);
    assertThat(again.json().at("/sync/loss_by_step"))
        .isEqualTo(both.json().at("/sync/loss_by_step"));
    assertThat(again.accuracy("sync")).isEqualTo(both.accuracy("sync"));
  }

  @Tag("full")
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
  void everySeed_hasAtLeast95Percent(long seed) throws IOException {
    Run run = Run.of(8, true, seed, null, folder);
    assertThat(run.json().get("proof_holds").booleanValue()).isTrue();
    assertThat(run.accuracy("sync")).isGreaterThanOrEqualTo(0.95);
    assertThat(run.accuracy("local")).isLessThan(run.accuracy("sync"));
  }
}
