package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StoredTensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What {@code syncbn replay} does on either device. */
abstract class ReplayContract {
  /** Every recording in the test resources. */
  static Stream<String> recordings() throws IOException {
    try (Stream<Path> files = Files.list(EditedRecording.REPLAY)) {
      return files
          .map(file -> file.getFileName().toString().replace(".safetensors", ""))
          .sorted()
          .toList()
          .stream();
    }
  }

  @TempDir Path folder;

  /** {@code cpu} or {@code gpu}. */
  abstract String device();

  CommandRun replay(Object... args) {
    List<String> all = new ArrayList<>(List.of("replay", "--device", device()));
    for (Object arg : args) {
      all.add(arg.toString());
    }
    return CommandRun.of(all.toArray(String[]::new));
  }

  static Path golden(String name) {
    return EditedRecording.REPLAY.resolve(name + ".safetensors");
  }

  @Test
  void thereAreAllRecordings() throws IOException {
    assertThat(recordings()).hasSize(34);
  }

  @ParameterizedTest
  @MethodSource("recordings")
  void recording_isWithinTolerance(String name) {
    CommandRun run = replay(golden(name));
    assertThat(run.err()).isEmpty();
    assertThat(run.lines()).hasSize(2);
    assertThat(run.lines().get(0))
        .matches("ok   " + name + "  worst [01]\\.\\d\\d of tolerance at step\\.\\d\\.\\S+");
    assertThat(run.lines().get(1)).isEqualTo("1 of 1 cases within tolerance");
    assertThat(run.status()).isZero();
  }

  @Test
  void severalFiles_areCounted() throws IOException {
    Path inputs =
        new EditedRecording("dense-uneven")
            .keep(EditedRecording::isInput)
            .write(folder.resolve("inputs.safetensors"));
    Path strange =
        new EditedRecording("dense-1-replica")
            .editCase(c -> c.put("layers", 3))
            .write(folder.resolve("strange.safetensors"));
    Path wrong =
        new EditedRecording("dense-1-replica")
            .set("step.1.replica.0.y", 3, 100)
            .write(folder.resolve("wrong.safetensors"));
    CommandRun run = replay(golden("no-scale"), wrong, inputs, strange, folder.resolve("no"));
    assertThat(run.lines().stream().map(line -> line.split("[ :]+")[0]))
        .containsExactly("ok", "FAIL", "ran", "REFUSED", "REFUSED", "1");
    assertThat(run.lines().get(5)).isEqualTo("1 of 4 cases within tolerance");
    assertThat(run.status()).isEqualTo(1);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "step.0.replica.0.y",
        "step.2.replica.1.y",
        "step.0.replica.1.dx",
        "step.2.replica.0.dx",
        "step.1.replica.0.gamma_grad",
        "step.2.replica.1.beta_grad",
        "step.0.moving_mean",
        "step.1.moving_variance",
        "step.2.moving_mean"
      })
  void changedExpectation_fails(String tensor) throws IOException {
    EditedRecording edited = new EditedRecording("dense-2-replicas");
    float value = edited.get(tensor, 5);
    Path file = folder.resolve("changed.safetensors");
    CommandRun run = replay(edited.set(tensor, 5, value + 0.01f).write(file));
    assertThat(run.lines().get(0))
        .startsWith("FAIL dense-2-replicas  worst ")
        .contains(" of tolerance at " + tensor + ", element 5: got ");
    assertThat(run.lines().get(1)).isEqualTo("0 of 1 cases within tolerance");
    assertThat(run.status()).isEqualTo(1);

    run = replay(edited.set(tensor, 5, Float.NaN).write(file));
    assertThat(run.lines().get(0))
        .contains("worst Infinity of tolerance at " + tensor + ", element 5")
        .endsWith("want NaN");
    assertThat(run.status()).isEqualTo(1);
  }

  /**
   * A gradient has to be as near as its tensor's largest value allows, anything else as its own.
   */
  @ParameterizedTest
  @CsvSource({"step.0.replica.0.dx", "step.0.replica.0.gamma_grad", "step.0.replica.0.beta_grad"})
  void gradientTolerance_isThatOfTheLargest(String tensor) throws IOException {
    EditedRecording edited =
        new EditedRecording("dense-2-replicas")
            .editCase(c -> c.putObject("tolerance").put("rtol", 1e-3).put("atol", 1e-5));
    int elements = (int) edited.tensors.get(tensor).elements();
    int largest = 0;
    int smallest = 0;
    for (int i = 0; i < elements; i++) {
      largest = abs(edited, tensor, i) > abs(edited, tensor, largest) ? i : largest;
      smallest = abs(edited, tensor, i) < abs(edited, tensor, smallest) ? i : smallest;
    }
    float bound = 1e-5f + 1e-3f * abs(edited, tensor, largest);
    float value = edited.get(tensor, smallest);
    Path file = folder.resolve("changed.safetensors");
    assertThat(
            replay(edited.set(tensor, smallest, value + 0.9f * bound).write(file)).lines().get(0))
        .startsWith("ok ")
        .endsWith(" of tolerance at " + tensor);
    assertThat(
            replay(edited.set(tensor, smallest, value + 1.1f * bound).write(file)).lines().get(0))
        .startsWith("FAIL ");
  }

  /** The largest value of an output gives no leeway to its small ones. */
  @ParameterizedTest
  @ValueSource(strings = {"step.0.replica.0.y", "step.0.moving_mean"})
  void outputTolerance_isThatOfTheElement(String tensor) throws IOException {
    EditedRecording edited =
        new EditedRecording("dense-2-replicas")
            .editCase(c -> c.putObject("tolerance").put("rtol", 0.1).put("atol", 1e-5));
    int smallest = 0;
    for (int i = 0; i < 7; i++) {
      smallest = abs(edited, tensor, i) < abs(edited, tensor, smallest) ? i : smallest;
    }
    edited.set(tensor, smallest, 1.3f * edited.get(tensor, smallest));
    CommandRun run = replay(edited.write(folder.resolve("changed.safetensors")));
    assertThat(run.lines().get(0))
        .startsWith("FAIL ")
        .contains(" at " + tensor + ", element " + smallest);
  }

  private static float abs(EditedRecording recording, String tensor, int element) {
    return Math.abs(recording.get(tensor, element));
  }

  /** {@code tolerance.state} is for the moving statistics, and for nothing else. */
  @Test
  void stateTolerance_isForTheState() throws IOException {
    EditedRecording edited =
        new EditedRecording("dense-1-replica")
            .editCase(
                c -> c.withObject("/tolerance").putObject("state").put("rtol", 0).put("atol", 10));
    Path file = folder.resolve("state.safetensors");
    edited.set("step.0.moving_mean", 0, edited.get("step.0.moving_mean", 0) + 1);
    CommandRun run = replay(edited.write(file));
    assertThat(run.lines().get(0))
        .isEqualTo("ok   dense-1-replica  worst 0.10 of tolerance at step.0.moving_mean");
    edited.set("step.0.replica.0.y", 0, edited.get("step.0.replica.0.y", 0) + 1);
    run = replay(edited.write(file));
    assertThat(run.lines().get(0)).startsWith("FAIL ").contains("at step.0.replica.0.y");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "step.0.replica.0.y",
        "step.0.replica.1.dx",
        "step.1.replica.0.gamma_grad",
        "step.2.replica.1.beta_grad",
        "step.1.moving_variance"
      })
  void missingExpectation_fails(String tensor) throws IOException {
    Path file = folder.resolve("missing.safetensors");
    CommandRun run = replay(new EditedRecording("dense-2-replicas").remove(tensor).write(file));
    assertThat(run.lines().get(0))
        .isEqualTo(
            "FAIL dense-2-replicas  "
                + tensor
                + " was produced, but the file has none to compare with");
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void expectationThatIsNotProduced_fails() throws IOException {
    Path file = folder.resolve("more.safetensors");
    CommandRun run =
        replay(new EditedRecording("dense-1-replica").remove("step.1.replica.0.dy").write(file));
    assertThat(run.lines().get(0))
        .startsWith("FAIL dense-1-replica  step.1.replica.0.")
        .endsWith(" is expected, but the layer did not produce it");
    run =
        replay(
            new EditedRecording("no-scale")
                .zeros("step.0.replica.1.gamma_grad", "F32", 24, 6)
                .write(file));
    assertThat(run.lines().get(0))
        .isEqualTo(
            "FAIL no-scale  step.0.replica.1.gamma_grad is expected, but the layer did not produce"
                + " it");
  }

  @Test
  void misshapenExpectation_fails() throws IOException {
    Path file = folder.resolve("shape.safetensors");
    CommandRun run =
        replay(
            new EditedRecording("dense-1-replica")
                .zeros("step.0.replica.0.y", "F32", 4 * 7 * 16, 7, 16)
                .write(file));
    assertThat(run.lines().get(0))
        .isEqualTo(
            "FAIL dense-1-replica  step.0.replica.0.y must be F32[16, 7], expected is F32[7, 16]");
    run =
        replay(
            new EditedRecording("dense-1-replica")
                .zeros("step.0.moving_mean", "F64", 56, 7)
                .write(file));
    assertThat(run.lines().get(0))
        .contains("step.0.moving_mean must be F32[7], expected is F64[7]");
  }

  /**
   * What {@code --out} wrote, put beside the inputs, is a recording that is matched bit for bit.
   */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "dense-2-replicas",
        "empty-replica",
        "no-center-no-scale",
        "renorm-2-replicas",
        "bfloat16",
        "float64",
        "mask",
        "frozen",
        "adjustment"
      })
  void out_isARecordingOfTheLayer(String name) throws IOException {
    EditedRecording inputs = new EditedRecording(name).keep(EditedRecording::isInput);
    int outputs = new EditedRecording(name).tensors.size() - inputs.tensors.size();
    Map<String, StoredTensor> produced = produce(inputs);
    assertThat(produced).hasSize(outputs);
    inputs.tensors.putAll(produced);
    inputs.editCase(c -> c.putObject("tolerance").put("rtol", 0).put("atol", 0));
    CommandRun run = replay(inputs.write(folder.resolve("own.safetensors")));
    assertThat(run.lines().get(0)).startsWith("ok   " + name + "  worst 0.00 of tolerance");
    assertThat(run.status()).isZero();
  }

  /** A NaN spreads over its channel; where it is expected it is right, and nowhere else. */
  @Test
  void expectedNaN_equalsNaN() throws IOException {
    EditedRecording inputs =
        new EditedRecording("dense-2-replicas")
            .keep(EditedRecording::isInput)
            .set("step.1.replica.0.x", 3, Float.NaN);
    inputs.tensors.putAll(produce(inputs));
    assertThat(inputs.get("step.1.replica.1.y", 3)).isNaN();
    assertThat(inputs.get("step.1.moving_mean", 3)).isNaN();
    Path file = folder.resolve("nan.safetensors");
    assertThat(replay(inputs.write(file)).lines().get(0)).startsWith("ok ");

    float dx = inputs.get("step.1.replica.1.dx", 4);
    assertThat(inputs.get("step.1.replica.1.dx", 3)).isNaN();
    inputs.set("step.1.replica.1.dx", 4, dx + 1);
    assertThat(replay(inputs.write(file)).lines().get(0))
        .startsWith("FAIL ")
        .contains(" at step.1.replica.1.dx, element 4");
    inputs.set("step.1.replica.1.dx", 4, dx);

    inputs.set("step.1.replica.1.y", 3, 0);
    assertThat(replay(inputs.write(file)).lines().get(0))
        .endsWith(
            "worst Infinity of tolerance at step.1.replica.1.y, element 3: got NaN, want"
                + " 0.00000000");
  }

  private Map<String, StoredTensor> produce(EditedRecording inputs) throws IOException {
    Path file = inputs.write(folder.resolve("inputs.safetensors"));
    Path out = folder.resolve("new folder/out");
    CommandRun run = replay("--out", out, file);
    assertThat(run.lines().get(0)).matches("ran  \\S+  nothing to compare");
    assertThat(run.lines().get(1)).isEqualTo("0 of 0 cases within tolerance");
    assertThat(run.status()).isZero();
    Safetensors written = Safetensors.read(out.resolve("inputs.safetensors"));
    assertThat(written.metadata()).isEqualTo(inputs.metadata);
    assertThat(written.tensors().keySet()).noneMatch(EditedRecording::isInput);
    return new LinkedHashMap<>(written.tensors());
  }

  @Test
  void inputsWithoutUpstreamGradients_runForwardOnly() throws IOException {
    EditedRecording inputs =
        new EditedRecording("dense-2-replicas")
            .keep(name -> EditedRecording.isInput(name) && !name.endsWith(".dy"));
    assertThat(produce(inputs).keySet())
        .hasSize(12)
        .allMatch(name -> name.endsWith(".y") || name.contains(".moving_"));
  }

  /**
   * Replicas do the same: each kernel once a step and direction, one collective in a training step,
   * none in inference.
   */
  @Test
  void trace_showsEachDevice() {
    CommandRun run = replay("--trace", golden("dense-2-replicas"));
    assertThat(run.status()).isZero();
    Map<String, List<String>> byDevice = new LinkedHashMap<>();
    Pattern line = Pattern.compile(" {4}(\\w+:\\d+) +(.*)");
    for (String text : run.lines()) {
      Matcher matcher = line.matcher(text);
      if (matcher.matches()) {
        byDevice.get(matcher.group(1)).add(matcher.group(2));
      } else if (text.startsWith("  step ")) {
        for (String id : List.of(device() + ":0", device() + ":1")) {
          byDevice.computeIfAbsent(id, key -> new ArrayList<>()).add(text.strip());
        }
      }
    }
    assertThat(byDevice).containsOnlyKeys(device() + ":0", device() + ":1");
    List<String> first = byDevice.get(device() + ":0");
    assertThat(byDevice.get(device() + ":1")).isEqualTo(first);
    String exchange = collective() + ", ";
    assertThat(
            first.stream().map(text -> text.startsWith(exchange) ? "exchange" : text.split(",")[0]))
        .containsExactly(
            "step 0 forward (training)",
            "kernel stats",
            "exchange",
            "kernel normalize",
            "step 0 backward (training)",
            "kernel backward_reduce",
            "exchange",
            "kernel backward_input",
            "step 1 forward (training)",
            "kernel stats",
            "exchange",
            "kernel normalize",
            "step 1 backward (training)",
            "kernel backward_reduce",
            "exchange",
            "kernel backward_input",
            "step 2 forward (inference)",
            "kernel normalize",
            "step 2 backward (inference)",
            "kernel backward_reduce",
            "kernel backward_input");
  }

  /** What a trace calls the exchange of rows. */
  abstract String collective();

  @Test
  void out_thatCannotBeWritten_isOneLine() throws IOException {
    Path file = Files.createFile(folder.resolve("file"));
    CommandRun run = replay("--out", file.resolve("below"), golden("dense-1-replica"));
    assertThat(run.status()).isEqualTo(1);
    assertThat(run.err().lines())
        .hasSize(1)
        .first()
        .asString()
        .startsWith("syncbn: ")
        .contains("file");
  }
}
