package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** What {@code syncbn replay} does not run: one line that names the key and the value. */
class ReplayRefusalTest {
  @TempDir Path folder;

  private static Arguments edit(String name, String reason, Consumer<ObjectNode> edit) {
    return arguments(name, reason, edit);
  }

  static Stream<Arguments> cases() {
    return Stream.of(
        edit("unknown key", "case.layers 3 is not supported", c -> c.put("layers", 3)),
        edit(
            "unknown key in config",
            "keyword argument not understood: renorm_clip",
            c -> c.withObject("/config").put("renorm_clip", false)),
        edit(
            "unknown key in a step",
            "steps[1].masked true is not supported",
            c -> ((ObjectNode) c.get("steps").get(1)).put("masked", true)),
        edit(
            "unknown key in the tolerance",
            "tolerance.ulps 4 is not supported",
            c -> c.withObject("/tolerance").put("ulps", 4)),
        edit(
            "all keys are named",
            "case.layers 3 is not supported; case.groups 2 is not supported",
            c -> c.put("layers", 3).put("groups", 2)),
        edit("no dtype", "dtype (missing) is not supported", c -> c.remove("dtype")),
        edit(
            "no replicas", "replicas must be an integer, not (missing)", c -> c.remove("replicas")),
        edit("no replica", "replicas is 0, allowed is 1 to 1024", c -> c.put("replicas", 0)),
        edit("replicas", "replicas is 2000000000, allowed", c -> c.put("replicas", 2_000_000_000)),
        edit("half a replica", "replicas must be an integer, not 1.5", c -> c.put("replicas", 1.5)),
        edit("more replicas than x", "step.0.replica.2.x is missing", c -> c.put("replicas", 3)),
        edit("fewer replicas than x", "tensor step.0.replica.1.", c -> c.put("replicas", 1)),
        edit("no steps", "steps is empty", c -> c.putArray("steps")),
        edit("steps as a number", "steps must be an array, not 3", c -> c.put("steps", 3)),
        edit(
            "training as a number",
            "steps[0].training must be true or false, not 1",
            c -> ((ObjectNode) c.get("steps").get(0)).put("training", 1)),
        edit("fewer steps than x", "tensor step.2.", c -> c.withArray("/steps").remove(2)),
        edit("config as a text", "config must be an object, not \"\"", c -> c.put("config", "")),
        edit(
            "momentum as a text",
            "momentum must be a number, not \"0.9\"",
            c -> c.withObject("/config").put("momentum", "0.9")),
        edit(
            "negative epsilon",
            "epsilon must be at least 0, not -1.0",
            c -> c.withObject("/config").put("epsilon", -1)),
        edit(
            "center as a number",
            "config.center must be true or false, not 1",
            c -> c.withObject("/config").put("center", 1)),
        edit(
            "gamma without scale",
            "tensor initial.gamma is not supported",
            c -> c.withObject("/config").put("scale", false)),
        edit(
            "axis of the batch",
            "initial.gamma has shape [7], not [8]",
            c -> c.withObject("/config").put("axis", 0)),
        edit(
            "axis that is not there",
            "axis 2 is outside an input of rank 2 (-2 to 1)",
            c -> c.withObject("/config").put("axis", 2)),
        edit(
            "another dtype in config",
            "config.dtype is float64, but dtype is float32",
            c -> c.withObject("/config").put("dtype", "float64")),
        edit(
            "adjustment of text",
            "config.adjustment.bias must be finite numbers",
            c -> c.withObject("/config").putObject("adjustment").put("scale", 1).put("bias", "1")),
        edit(
            "adjustment that does not fit",
            "the adjustment's scale has shape [2], which does not broadcast to that of x, [8, 7]",
            c ->
                c.withObject("/config")
                    .putObject("adjustment")
                    .put("bias", 1)
                    .putArray("scale")
                    .add(1)
                    .add(2)),
        edit(
            "trainable as a text",
            "config.trainable must be true or false, not \"yes\"",
            c -> c.withObject("/config").put("trainable", "yes")),
        edit("no tolerance", "tolerance is missing", c -> c.remove("tolerance")),
        edit(
            "negative tolerance",
            "tolerance needs rtol and atol of at least 0",
            c -> c.withObject("/tolerance").put("rtol", -1)),
        edit(
            "half a tolerance",
            "tolerance.state needs rtol and atol of at least 0",
            c -> c.withObject("/tolerance").putObject("state").put("rtol", 1)));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("cases")
  void strangeCase_isRefused(String name, String reason, Consumer<ObjectNode> edit)
      throws IOException {
    Path file = folder.resolve("strange.safetensors");
    refused(new EditedRecording("dense-2-replicas").editCase(edit).write(file), null, reason);
  }

  @Test
  void supportedSpellings_run() throws IOException {
    Path file = folder.resolve("same.safetensors");
    for (String axis : new String[] {"-1", "1", "[1]", "[-1]"}) {
      EditedRecording edited = new EditedRecording("dense-2-replicas");
      String text = edited.metadata.get("case");
      String config = "\"config\": {\"trainable\": true, \"axis\": " + axis + "}";
      edited.metadata.put("case", text.replaceFirst("\"config\": ?\\{}", config));
      assertThat(edited.metadata.get("case")).contains(config);
      CommandRun run = CommandRun.of("replay", edited.write(file).toString());
      assertThat(run.lines().get(0)).startsWith("ok   dense-2-replicas");
    }
  }

  @Test
  void brokenJson_isRefused() throws IOException {
    refusedCase("{", "case is not valid JSON");
    refusedCase("", "case must be an object");
    refusedCase("[]", "case must be an object, not []");
    refusedCase("{} {}", "case is not valid JSON");
    refusedCase("{\"a\":".repeat(50_000), "case is not valid JSON");
    refusedCase(
        "{\"replicas\":1,\"replicas\":2}", "case is not valid JSON: Duplicate field 'replicas'");
    refusedCase("{\"dtype\":\"float32\",\"config\":{\"epsilon\":NaN}}", "case is not valid JSON");
    refusedCase(
        "{\"dtype\":\"float32\",\"config\":{\"epsilon\":1e999}}", "replicas must be an integer");
  }

  private void refusedCase(String json, String reason) throws IOException {
    EditedRecording edited = new EditedRecording("dense-1-replica");
    edited.metadata.put("case", json);
    refused(edited.write(folder.resolve("broken.safetensors")), "broken", reason);
  }

  @Test
  void otherFormat_isRefused() throws IOException {
    EditedRecording edited = new EditedRecording("dense-1-replica");
    edited.metadata.put("format", "syncbn-replay/2");
    Path file = folder.resolve("v2.safetensors");
    refused(edited.write(file), "v2", "format is syncbn-replay/2, supported is syncbn-replay/1");
    edited.metadata.remove("format");
    refused(edited.write(file), "v2", "format is missing");
    edited.metadata.put("format", "syncbn-replay/1");
    edited.metadata.remove("case");
    refused(edited.write(file), "v2", "case is missing");
  }

  @Test
  void inputThatIsMissing_isRefused() throws IOException {
    for (String name :
        new String[] {
          "initial.gamma", "initial.moving_variance", "step.0.replica.0.x", "step.2.replica.1.x"
        }) {
      Path file = folder.resolve("missing.safetensors");
      refused(
          new EditedRecording("dense-2-replicas").remove(name).write(file),
          null,
          "tensor " + name + " is missing");
    }
  }

  @Test
  void upstreamGradientOfSomeReplicas_isRefused() throws IOException {
    Path file = folder.resolve("some.safetensors");
    refused(
        new EditedRecording("dense-2-replicas").remove("step.1.replica.1.dy").write(file),
        null,
        "tensor step.1.replica.1.dy is missing");
    refused(
        new EditedRecording("dense-2-replicas").remove("step.1.replica.0.dy").write(file),
        null,
        "step.1.replica.0.dy is missing, but there is step.1.replica.1.dy");
  }

  @Test
  void tensorThatDoesNotFit_isRefused() throws IOException {
    refusedTensor("step.0.replica.1.x", "F64", 8 * 56, "step.0.replica.1.x is F64, not F32", 8, 7);
    refusedTensor(
        "step.0.replica.0.dy", "F64", 8 * 56, "step.0.replica.0.dy is F64, not F32", 8, 7);
    refusedTensor("step.1.replica.0.mask", "F32", 32, "step.1.replica.0.mask is F32, not BOOL", 8);
    refusedTensor("step.1.replica.0.mask", "BOOL", 7, "mask has shape [7], not [8]", 7);
    refusedTensor(
        "step.0.replica.0.dy",
        "F32",
        4 * 56,
        "step.0.replica.0.dy has shape [7, 8], not [8, 7]",
        7,
        8);
    refusedTensor("initial.beta", "F32", 24, "initial.beta has shape [6], not [7]", 6);
    refusedTensor("initial.moving_mean", "F64", 56, "initial.moving_mean is F64, not F32", 7);
  }

  @Test
  void inputThatTheLayerDoesNotTake_isRefused() throws IOException {
    refused(
        new EditedRecording("dense-2-replicas")
            .keep(EditedRecording::isInput)
            .zeros("step.1.replica.1.x", "F32", 4 * 56, 7, 8)
            .zeros("step.1.replica.1.dy", "F32", 4 * 56, 7, 8)
            .write(folder.resolve("wide.safetensors")),
        null,
        "x has 8 channels in dimension 1, the layer has 7");
    refused(
        new EditedRecording("dense-2-replicas")
            .keep(EditedRecording::isInput)
            .zeros("step.0.replica.0.x", "F32", 4)
            .zeros("step.0.replica.0.dy", "F32", 4)
            .write(folder.resolve("scalar.safetensors")),
        null,
        "the input must have rank 1 or more, not 0");
  }

  @Test
  void unknownTensor_isRefused() throws IOException {
    for (String name :
        new String[] {
          "extra",
          "initial.renorm_mean",
          "step.0.moving_stddev",
          "step.00.moving_mean",
          "step.3.moving_mean",
          "step.0.replica.2.y",
          "step.-1.moving_mean",
          "step.0.replica.0.z",
          "step.99999999999.moving_mean",
          "step.0.replica.0.y.z",
          "STEP.0.moving_mean"
        }) {
      refusedTensor(name, "F32", 28, "tensor " + name + " is not supported", 7);
    }
    refusedTensor("a\nb", "F32", 28, "tensor a\\u000ab is not supported", 7);
  }

  private void refusedTensor(String name, String dtype, int bytes, String reason, long... shape)
      throws IOException {
    refused(
        new EditedRecording("dense-2-replicas")
            .zeros(name, dtype, bytes, shape)
            .write(folder.resolve("tensor.safetensors")),
        null,
        reason);
  }

  @Test
  void noChannels_isRefused() throws IOException {
    EditedRecording edited = new EditedRecording("dense-1-replica").keep(EditedRecording::isInput);
    for (String name : Set.copyOf(edited.tensors.keySet())) {
      if (name.startsWith("initial")) {
        edited.zeros(name, "F32", 0, 0);
      } else {
        edited.zeros(name, "F32", 0, 16, 0);
      }
    }
    refused(
        edited.write(folder.resolve("none.safetensors")),
        null,
        "channels must be 1 to 268435456, not 0");
  }

  @Test
  void damagedFile_isRefused() throws IOException {
    Path file = folder.resolve("damaged");
    Files.write(file, new byte[] {0, 0, 0, 0, 0, 0, 0, (byte) 0x80, '{', '}'});
    refused(file, "damaged", "header of 9223372036854775808 bytes, the limit is 100000000");
    refused(folder.resolve("absent"), "absent", "no such file");
    refused(folder, folder.getFileName().toString(), "not a regular file");
  }

  @Test
  void wrongUsage_hasItsOwnStatus() throws IOException {
    Path golden = ReplayContract.golden("dense-1-replica");
    usage("a command is missing");
    usage("'FILE'", "replay");
    usage("'tpu'", "replay", "--device", "tpu", golden.toString());
    usage("--fast", "replay", "--fast", golden.toString());
    Path copy = Files.copy(golden, folder.resolve("dense-1-replica.safetensors"));
    usage(
        "two files are named",
        "replay",
        "--out",
        folder + "/o",
        golden.toString(),
        copy.toString());
    usage("would replace the recording", "replay", "--out", folder.toString(), copy.toString());
    assertThat(Files.mismatch(golden, copy)).isEqualTo(-1);
  }

  private static void usage(String message, String... args) {
    CommandRun run = CommandRun.of(args);
    assertThat(run.status()).isEqualTo(2);
    assertThat(run.out()).isEmpty();
    assertThat(run.err().lines())
        .hasSize(1)
        .first()
        .asString()
        .startsWith("syncbn: ")
        .contains(message);
  }

  private static void refused(Path file, String name, String reason) {
    CommandRun run = CommandRun.of("replay", file.toString());
    assertThat(run.err()).isEmpty();
    assertThat(run.lines()).hasSize(2);
    assertThat(run.lines().get(0))
        .startsWith("REFUSED " + (name == null ? "" : name + ": "))
        .contains(reason)
        .hasSizeLessThan(500);
    assertThat(run.lines().get(1)).isEqualTo("0 of 1 cases within tolerance");
    assertThat(run.status()).isEqualTo(1);
  }
}
