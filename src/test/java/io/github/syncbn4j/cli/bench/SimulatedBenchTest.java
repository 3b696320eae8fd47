package io.github.syncbn4j.cli.bench;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.syncbn4j.DType;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** {@code syncbn bench --device gpu} on the simulated node: that it runs, and looks at results. */
@Tag("sim")
@Timeout(120)
class SimulatedBenchTest {
  private static final long CACHE_BYTES = 256;

  @TempDir Path folder;

  @ParameterizedTest
  @ValueSource(ints = {1, 2})
  void everyPass_isRightAndTimed_besideACopy(int replicas) throws IOException {
    List<Problem> problems = new ArrayList<>();
    List<Pass> passes = List.of(Pass.values());
    Suite.small.addBothLayouts(problems, 3, 5, 4, DType.BFLOAT16, true, passes);
    Suite.small.addBothLayouts(problems, 3, 5, 4, DType.FLOAT32, false, Pass.PLAIN);
    Path json = folder.resolve("out.json");
    BenchJob.Options options =
        new BenchJob.Options(Suite.small, BenchJob.Device.simulated, replicas, 2, true, json, null);
    StringWriter text = new StringWriter();
    boolean right =
        new BenchJob(
                options,
                problems,
                () -> new GpuPlace(replicas, 1, CACHE_BYTES),
                new PrintWriter(text))
            .run();
    assertThat(right).as(text.toString()).isTrue();
    assertThat(text.toString())
        .contains("Simulated GPUs: small tensors, and times that mean nothing.")
        .contains("peer torch: ")
        .containsPattern("backward_add_relu +syncbn4j .* us to enqueue");
    JsonNode results = new ObjectMapper().readTree(json.toFile());
    assertThat(results).hasSize(2 * (passes.size() + Pass.PLAIN.size()) * 2);
    for (JsonNode result : results) {
      assertThat(result.get("device").textValue()).isEqualTo("simulated");
      assertThat(result.get("replicas").intValue()).isEqualTo(replicas);
      assertThat(result.get("median_us").doubleValue()).isPositive();
      assertThat(result.get("copies").doubleValue()).isPositive();
      assertThat(result.get("max_error").doubleValue()).isBetween(0.0, 0.01);
    }
  }
}
