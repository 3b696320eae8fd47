package io.github.syncbn4j.cli.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import io.github.syncbn4j.DType;
import io.github.syncbn4j.device.Address;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What the benchmark reports, of tensors so small that it takes no time. */
class BenchJobTest {
  private static final long CACHE_BYTES = 4096;
  private static final List<Pass> EVERY_PASS = List.of(Pass.values());

  @TempDir Path folder;

  private record Run(boolean right, String text) {}

  private static List<Problem> tiny(DType dtype, boolean cold) {
    List<Problem> problems = new ArrayList<>();
    Suite.small.addBothLayouts(problems, 4, 3, 5, dtype, cold, EVERY_PASS);
    problems.add(Problem.of(Suite.small, 8, 33, List.of(), true, dtype, cold, EVERY_PASS));
    return problems;
  }

  private BenchJob.Options options(int replicas, boolean peers) {
    return new BenchJob.Options(
        Suite.small,
        BenchJob.Device.cpu,
        replicas,
        2,
        peers,
        folder.resolve("out.json"),
        peers ? folder.resolve("plots") : null);
  }

  private Run run(int replicas, boolean peers, List<Problem> problems) throws IOException {
    StringWriter text = new StringWriter();
    boolean right =
        new BenchJob(
                options(replicas, peers),
                problems,
                () -> new CpuPlace(replicas, 2, CACHE_BYTES, new StillWaits(2)),
                new PrintWriter(text))
            .run();
    return new Run(right, text.toString());
  }

  private ArrayNode json() throws IOException {
    return (ArrayNode) new ObjectMapper().readTree(folder.resolve("out.json").toFile());
  }

  @ParameterizedTest
  @EnumSource(names = {"FLOAT32", "FLOAT16"})
  void everyPass_isRightAndTimed_besideACopy(DType dtype) throws IOException {
    Run run = run(1, false, tiny(dtype, true));
    assertThat(run.right()).as(run.text()).isTrue();
    ArrayNode json = json();
    assertThat(json).hasSize(3 * EVERY_PASS.size() * 2);
    for (JsonNode result : json) {
      List<String> fields = new ArrayList<>();
      result.fieldNames().forEachRemaining(fields::add);
      assertThat(fields)
          .containsExactly(
              "suite",
              "layer",
              "shape",
              "layout",
              "dtype",
              "pass",
              "replicas",
              "threads",
              "device",
              "cold",
              "impl",
              "median_us",
              "p10_us",
              "p90_us",
              "copies",
              "max_error");
      assertThat(result.get("dtype").textValue()).isEqualToIgnoringCase(dtype.name());
      assertThat(result.get("impl").textValue()).isIn("copy", "syncbn4j");
      assertThat(result.get("cold").booleanValue()).isTrue();
      assertThat(result.get("median_us").doubleValue()).isPositive();
      assertThat(result.get("copies").doubleValue()).isPositive();
      assertThat(result.get("max_error").doubleValue()).isBetween(0.0, 0.01);
    }
    assertThat(json.get(0).get("shape").toString()).isEqualTo("[4,3,5,5]");
    assertThat(json.get(2 * EVERY_PASS.size()).get("shape").toString()).isEqualTo("[4,5,5,3]");
  }

  @Test
  void replicas_shareTheBatch() throws IOException {
    Run run = run(3, false, tiny(DType.FLOAT32, false));
    assertThat(run.right()).as(run.text()).isTrue();
    assertThat(json()).allMatch(result -> result.get("replicas").intValue() == 3);
  }

  @Test
  void moreReplicasThanImages_areRefused() {
    assertThatThrownBy(() -> run(5, false, tiny(DType.FLOAT32, false)))
        .hasMessage("--replicas is 5, but this suite has batches of 4 image(s)");
  }

  @Test
  void peers_areTimedToo() throws IOException {
    Run run = run(1, true, tiny(DType.FLOAT32, true).subList(0, 2));
    assertThat(run.right()).as(run.text()).isTrue();
    Set<String> timed = new HashSet<>();
    json()
        .forEach(
            result ->
                timed.add(result.get("impl").textValue() + " " + result.get("pass").textValue()));
    assertThat(timed)
        .contains("libtorch forward", "libtorch backward", "libtorch inference")
        .contains("libtorch forward_add_relu", "libtorch backward_add_relu")
        .contains("onednn forward", "onednn backward", "onednn inference")
        .contains("onednn forward_add_relu", "onednn backward_add_relu")
        .contains("onednn inference_add_relu");
    assertThat(run.text())
        .containsPattern(
            "channels_last float32 forward cold +[0-9.]+ \\([0-9.]+ to [0-9.]+\\) copies")
        .containsPattern(", libtorch takes [0-9.]+ \\([0-9.]+ to [0-9.]+\\) times as long");
    for (String plot : List.of("copies-", "libtorch-", "onednn-")) {
      BufferedImage image =
          ImageIO.read(folder.resolve("plots").resolve(plot + "cold.png").toFile());
      assertThat(image.getWidth()).isPositive();
    }
  }

  @Test
  void discardedSamples_areSaid() throws IOException {
    assertThat(run(1, false, tiny(DType.FLOAT32, false).subList(0, 2)).text())
        .contains("2 sample(s) discarded, in which a thread waited for a processor");
  }

  @Test
  void wrongResult_hasNoTime() throws IOException {
    StringWriter text = new StringWriter();
    BenchJob job =
        new BenchJob(
            options(1, false),
            tiny(DType.FLOAT32, false).subList(0, 2),
            () -> new CpuPlace(1, 2, CACHE_BYTES, new StillWaits(0)),
            new PrintWriter(text)) {
          @Override
          Contender layer(Operands operands) {
            return new Unfinished(super.layer(operands), operands);
          }
        };
    assertThat(job.run()).isFalse();
    assertThat(text.toString()).contains("WRONG: an error of NaN");
    assertThat(json())
        .isNotEmpty()
        .allMatch(result -> result.get("impl").textValue().equals("copy"));
  }

  /** Leaves one element as it was. */
  private record Unfinished(Contender layer, Operands operands) implements Contender {
    @Override
    public String name() {
      return layer.name();
    }

    @Override
    public List<Way> ways(Pass pass) {
      return layer.ways(pass).stream()
          .map(
              way ->
                  new Way(
                      set -> {
                        way.call().run(0, set);
                        Pointer.memset(new Address(operands.out(0, set)), 0xff, 4);
                      }))
          .toList();
    }

    @Override
    public List<double[]> parameterGradients() {
      return layer.parameterGradients();
    }

    @Override
    public double allowedError() {
      return layer.allowedError();
    }

    @Override
    public void close() {
      layer.close();
    }
  }

  @Test
  void resnet50_hasItsCases() {
    List<Problem> problems = Suite.resnet50.problems();
    assertThat(problems).hasSize(12 * 2 * 3).doesNotHaveDuplicates();
    assertThat(problems).allMatch(p -> p.cold() && p.passes().equals(Pass.PLAIN));
    assertThat(problems.stream().map(Problem::layer).distinct()).hasSize(12);
    assertThat(Suite.small.problems()).allMatch(p -> !p.cold() && p.bytes() < 1_000_000);
  }

  @Test
  void withoutFiles_nothingIsWritten() throws IOException {
    BenchJob.Options options =
        new BenchJob.Options(Suite.small, BenchJob.Device.cpu, 1, 1, false, null, null);
    List<Problem> problems = tiny(DType.FLOAT32, false).subList(0, 1);
    PrintWriter out = new PrintWriter(new StringWriter());
    assertThat(
            new BenchJob(
                    options,
                    problems,
                    () -> new CpuPlace(1, 1, CACHE_BYTES, new StillWaits(0)),
                    out)
                .run())
        .isTrue();
    try (Stream<Path> files = Files.list(folder)) {
      assertThat(files).isEmpty();
    }
  }
}
