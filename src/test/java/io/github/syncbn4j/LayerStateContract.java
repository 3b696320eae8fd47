package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.github.syncbn4j.state.ConvertedFiles;
import io.github.syncbn4j.state.Naming;
import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StoredTensor;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** What layers save they load, on any number of replicas; what does not fit changes nothing. */
@Timeout(120)
abstract class LayerStateContract implements Devices {
  private static final int CHANNELS = 3;

  @TempDir Path folder;

  /** Every replica's variables and count, bit for bit. */
  private static List<ByteBuffer> bits(SyncBatchNormalization layer, Replica replica) {
    List<ByteBuffer> bits = new ArrayList<>();
    for (DeviceTensor variable : layer.variables(replica).values()) {
      ByteBuffer bytes = ByteBuffer.allocate((int) variable.bytes());
      variable.copyToHost(bytes);
      bits.add(bytes);
    }
    bits.add(ByteBuffer.allocate(Long.BYTES).putLong(0, layer.countedSteps()));
    return bits;
  }

  private static SyncBatchNormalization.Builder layerOf(ReplicaGroup group) {
    return SyncBatchNormalization.builder(group, CHANNELS).momentum(0.8);
  }

  private static void train(SyncBatchNormalization layer, int steps) {
    List<DeviceTensor> x = new ArrayList<>();
    for (Replica replica : layer.group().replicas()) {
      DeviceTensor tensor = replica.allocate(layer.dtype(), 4, CHANNELS);
      double[] values = new double[4 * CHANNELS];
      for (int i = 0; i < values.length; i++) {
        values[i] = Math.sin(i + 10 * replica.rank());
      }
      tensor.copyFromHost(values);
      x.add(tensor);
    }
    for (int i = 0; i < steps; i++) {
      layer.forward(x, x, true).close();
    }
    x.forEach(DeviceTensor::close);
  }

  private static void requireLoaded(SyncBatchNormalization layer, List<ByteBuffer> bits) {
    for (Replica replica : layer.group().replicas()) {
      assertThat(bits(layer, replica)).as("%s", replica).isEqualTo(bits);
    }
  }

  @Test
  @Tag("several")
  void savedLayer_isLoadedByAnyNumberOfReplicas_bitForBit() throws IOException {
    Path file = folder.resolve("layer.safetensors");
    for (Consumer<SyncBatchNormalization.Builder> option :
        List.<Consumer<SyncBatchNormalization.Builder>>of(
            builder -> {},
            builder -> builder.renorm(true).dtype(DType.BFLOAT16),
            builder -> builder.dtype(DType.FLOAT64).scale(false))) {
      List<ByteBuffer> saved;
      try (ReplicaGroup group = group(2)) {
        SyncBatchNormalization.Builder builder = layerOf(group);
        option.accept(builder);
        SyncBatchNormalization layer = builder.build();
        train(layer, 3);
        saved = bits(layer, group.replica(1));
        layer.save(file);
      }
      try (ReplicaGroup group = group(3)) {
        SyncBatchNormalization.Builder builder = layerOf(group);
        option.accept(builder);
        SyncBatchNormalization layer = builder.build();
        train(layer, 1);
        layer.load(file);
        requireLoaded(layer, saved);
        assertThat(layer.countedSteps()).isEqualTo(3);
      }
    }
  }

  @Test
  @Tag("several")
  void layersOfAModel_areOneFile_underTheNamesOfAnyFramework() throws IOException {
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization first = layerOf(group).build();
      SyncBatchNormalization second = layerOf(group).epsilon(1e-5).build(-1, 2, 5, 3);
      SyncBatchNormalization grid = layerOf(group).build();
      train(first, 2);
      train(grid, 1);
      Map<String, SyncBatchNormalization> layers = new LinkedHashMap<>();
      layers.put("block.bn1", first);
      layers.put("block.bn2", second);
      layers.put("grid", grid);
      List<ByteBuffer> before = bits(first, group.replica(0));
      for (Naming naming : Naming.values()) {
        Path file = folder.resolve(naming + ".safetensors");
        LayerState.save(file, layers, naming);
        train(first, 1);
        assertThat(bits(first, group.replica(0))).isNotEqualTo(before);
        LayerState.load(file, layers, naming);
        requireLoaded(first, before);
      }
      Safetensors torch = Safetensors.read(folder.resolve("pytorch.safetensors"));
      assertThat(torch.tensors()).hasSize(15).containsKey("block.bn2.num_batches_tracked");
      assertThat(torch.metadata())
          .containsEntry("block.bn2.eps", "1.0E-5")
          .containsEntry("grid.momentum", "0.2");
    }
  }

  @Test
  void severalAxes_haveTheirShape() throws IOException {
    Path file = folder.resolve("axes.safetensors");
    try (ReplicaGroup group = group(1)) {
      SyncBatchNormalization layer =
          SyncBatchNormalization.builder(group).axis(1, 3).build(-1, 2, 5, 3);
      layer.save(file);
      assertThat(Safetensors.read(file).tensors().get("gamma").shape()).containsExactly(1, 2, 1, 3);
      layer.load(file);
      SyncBatchNormalization flat = SyncBatchNormalization.builder(group, 6).build();
      assertThatThrownBy(() -> flat.load(file))
          .hasMessageStartingWith(file + ": \"gamma\" is F32[1, 2, 1, 3], not F32[6]");
    }
  }

  // -----------------------------------------------------------------------------------------
  // errors

  private void requireRefused(
      SyncBatchNormalization layer, Consumer<Map<String, StoredTensor>> change, String problem)
      throws IOException {
    Path file = folder.resolve("changed.safetensors");
    layer.save(file);
    Map<String, StoredTensor> tensors = new LinkedHashMap<>(Safetensors.read(file).tensors());
    change.accept(tensors);
    Safetensors.write(file, tensors, Map.of());
    List<ByteBuffer> before = bits(layer, layer.group().replicas().get(0));
    assertThatThrownBy(() -> layer.load(file))
        .isInstanceOf(IOException.class)
        .hasMessage(file + ": " + problem);
    requireLoaded(layer, before);
  }

  @Test
  @Tag("several")
  void whatDoesNotFit_isListed_andChangesNothing() throws IOException {
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization layer = layerOf(group).build();
      requireRefused(
          layer,
          tensors -> {
            tensors.remove("gamma");
            tensors.remove("counted_steps");
            tensors.put("gama", ConvertedFiles.floats(9, 9, 9));
            tensors.put("moving_stddev", ConvertedFiles.floats(9, 9, 9));
            tensors.put("beta", ConvertedFiles.floats(9, 9, 9));
          },
          "missing: \"gamma\", \"counted_steps\"; unexpected: \"moving_stddev\", \"gama\"");
      requireRefused(
          layer,
          tensors -> tensors.put("counted_steps", ConvertedFiles.floats(1)),
          "\"counted_steps\" is F32[1], not I64[]");
      requireRefused(
          layer,
          tensors -> tensors.put("counted_steps", ConvertedFiles.count(-1)),
          "-1 counted steps, allowed is 0 to 9007199254740992");
      requireRefused(
          layer,
          tensors -> tensors.replaceAll((name, tensor) -> ConvertedFiles.floats(1, 2)),
          "\"counted_steps\" is F32[2], expected one number");
      requireRefused(
          layer,
          tensors -> {
            tensors.put("bn.moving_mean", ConvertedFiles.floats(1));
            tensors.put("bn.moving_variance", ConvertedFiles.floats(1));
          },
          "batch normalizations that no layer is given for (see loadSome): \"bn\"");
      SyncBatchNormalization wide = layerOf(group).dtype(DType.FLOAT64).build();
      Path file = folder.resolve("narrow.safetensors");
      layer.save(file);
      assertThatThrownBy(() -> wide.load(file)).hasMessageContaining("is F32[3], not F64[3]");
    }
  }

  /** Other layers' tensors do not matter. */
  @Test
  @Tag("several")
  void fileOfAWholeModel_isLoaded() throws IOException {
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization layer = layerOf(group).build();
      Path file = folder.resolve("model.safetensors");
      LayerState.save(file, Map.of("bn", layer), Naming.SYNCBN4J);
      Map<String, StoredTensor> tensors = new LinkedHashMap<>(Safetensors.read(file).tensors());
      tensors.put("conv.weight", ConvertedFiles.floats(1));
      tensors.put("bn.gamma", ConvertedFiles.floats(4, 5, 6));
      Safetensors.write(file, tensors, Map.of());
      LayerState.load(file, Map.of("bn", layer), Naming.SYNCBN4J);
      assertThat(layer.gamma(group.replica(1)).copyToHost()).containsExactly(4, 5, 6);
    }
  }

  /** Layers of the file that none is given for are refused, unless some are asked for. */
  @Test
  @Tag("several")
  void someOfAModelsLayers_areLoaded_andStillHaveToFit() throws IOException {
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization first = layerOf(group).build();
      SyncBatchNormalization second = layerOf(group).build();
      Path file = folder.resolve("model.safetensors");
      train(first, 1);
      LayerState.save(file, Map.of("first", first, "second", second), Naming.KERAS);
      List<ByteBuffer> saved = bits(first, group.replica(0));
      train(first, 1);
      assertThatThrownBy(() -> LayerState.load(file, Map.of("first", first), Naming.KERAS))
          .isInstanceOf(IOException.class)
          .hasMessage(
              file
                  + ": batch normalizations that no layer is given for (see loadSome): \"second\"");
      LayerState.loadSome(file, Map.of("first", first), Naming.KERAS);
      requireLoaded(first, saved);
      SyncBatchNormalization bare = layerOf(group).scale(false).build();
      assertThatThrownBy(
              () -> LayerState.loadSome(file, Map.of("frist", first, "first", bare), Naming.KERAS))
          .hasMessageContaining("missing: \"frist/gamma\"");
    }
  }

  @Test
  void namesOfAnotherFramework_areRecognized() throws IOException {
    try (ReplicaGroup group = group(1)) {
      Map<String, SyncBatchNormalization> layers = Map.of("bn", layerOf(group).build());
      Path file = folder.resolve("model.safetensors");
      Map<Naming, Naming> others =
          Map.of(
              Naming.KERAS, Naming.SYNCBN4J,
              Naming.PYTORCH, Naming.KERAS,
              Naming.DJL, Naming.PYTORCH,
              Naming.SYNCBN4J, Naming.DJL);
      for (Naming naming : Naming.values()) {
        LayerState.save(file, layers, naming);
        String hint = "; the file has the names of Naming." + naming.name();
        assertThatThrownBy(() -> LayerState.load(file, layers, others.get(naming)))
            .isInstanceOf(IOException.class)
            .hasMessageStartingWith(file + ": missing: ")
            .hasMessageEndingWith(hint);
        assertThatThrownBy(() -> LayerState.loadSome(file, layers, others.get(naming)))
            .hasMessageEndingWith(hint);
        Map<String, SyncBatchNormalization> absent = Map.of("nb", layers.get("bn"));
        assertThatThrownBy(() -> LayerState.loadSome(file, absent, naming))
            .hasMessageStartingWith(file + ": missing: ")
            .hasMessageNotContaining("Naming");
      }
    }
  }

  /** PyTorch has both or none of them, DJL always both. */
  @Test
  void gammaThatChangesNothing_isLoadedIntoALayerWithout() throws IOException {
    try (ReplicaGroup group = group(1)) {
      SyncBatchNormalization whole = layerOf(group).build();
      SyncBatchNormalization bare = layerOf(group).scale(false).center(false).build();
      Path file = folder.resolve("model.safetensors");
      for (Naming naming : List.of(Naming.PYTORCH, Naming.DJL)) {
        LayerState.save(file, Map.of("bn", layerOf(group).center(false).build()), naming);
        LayerState.load(file, Map.of("bn", bare), naming);
        whole.gamma(group.replica(0)).copyFromHost(1, 1, 2);
        LayerState.save(file, Map.of("bn", whole), naming);
        assertThatThrownBy(() -> LayerState.load(file, Map.of("bn", bare), naming))
            .hasMessageStartingWith(file + ": unexpected: \"bn")
            .hasMessageNotContaining(",");
      }
    }
  }

  @Test
  void otherEpsilon_isAWarning() throws IOException {
    PrintStream before = System.err;
    ByteArrayOutputStream log = new ByteArrayOutputStream();
    try (ReplicaGroup group = group(1)) {
      Path file = folder.resolve("model.safetensors");
      LayerState.save(file, Map.of("bn", layerOf(group).epsilon(1e-5).build()), Naming.PYTORCH);
      System.setErr(new PrintStream(log, true));
      LayerState.load(file, Map.of("bn", layerOf(group).epsilon(1e-5f).build()), Naming.PYTORCH);
      assertThat(log.toString()).isEmpty();
      LayerState.load(file, Map.of("bn", layerOf(group).build()), Naming.PYTORCH);
    } finally {
      System.setErr(before);
    }
    assertThat(log.toString())
        .contains("epsilon of \"bn\" was 1.0E-5, this layer has 0.001: it infers something else");
  }

  @Test
  void closedLayer_absentFile_andNoLayers_areRefused() throws IOException {
    Path file = folder.resolve("layer.safetensors");
    try (ReplicaGroup group = group(1)) {
      SyncBatchNormalization layer = layerOf(group).build();
      assertThatThrownBy(() -> layer.load(file)).hasMessageContaining(file + ": no such file");
      assertThatThrownBy(() -> LayerState.save(file, Map.of(), Naming.SYNCBN4J))
          .isInstanceOf(IllegalArgumentException.class);
      layer.save(file);
      byte[] saved = Files.readAllBytes(file);
      layer.close();
      assertThatThrownBy(() -> layer.save(file)).isInstanceOf(IllegalStateException.class);
      assertThatThrownBy(() -> layer.load(file)).isInstanceOf(IllegalStateException.class);
      assertThat(file).hasBinaryContent(saved);
    }
  }

  // ----------------------------------------------------------------------- files of real
  // frameworks

  @Test
  @Tag("several")
  void kerasModel_infersWhatKerasDid() throws IOException {
    try (ReplicaGroup group = group(2)) {
      Map<String, StoredTensor> expected = ConvertedFiles.expected("model");
      Map<String, SyncBatchNormalization> layers = new LinkedHashMap<>();
      layers.put("first", layerOf(group).epsilon(1e-5).build());
      layers.put("no_scale", layerOf(group).scale(false).build());
      layers.put("neither", layerOf(group).scale(false).center(false).build());
      for (String name : List.of("model.keras", "model.h5")) {
        layers.values().forEach(layer -> train(layer, 1));
        LayerState.load(ConvertedFiles.file(name), layers, Naming.KERAS);
        for (Map.Entry<String, SyncBatchNormalization> layer : layers.entrySet()) {
          requireInference(
              layer.getValue(), expected.get("x"), expected.get(layer.getKey() + "/y"));
          assertThat(layer.getValue().countedSteps()).isZero();
        }
      }
      assertThatThrownBy(
              () ->
                  LayerState.load(
                      ConvertedFiles.file("model.keras"),
                      Map.of("first", layers.get("first")),
                      Naming.KERAS))
          .hasMessageEndingWith("(see loadSome): \"no_scale\", \"neither\"");
    }
  }

  @Test
  @Tag("several")
  void pytorchModule_infersWhatPytorchDid() throws IOException {
    try (ReplicaGroup group = group(2)) {
      Map<String, StoredTensor> expected = ConvertedFiles.expected("module");
      SyncBatchNormalization affine = layerOf(group).epsilon(1e-5).axis(1).build();
      SyncBatchNormalization plain = layerOf(group).scale(false).center(false).build();
      LayerState.load(
          ConvertedFiles.file("module.safetensors"),
          Map.of("1", affine, "2", plain),
          Naming.PYTORCH);
      requireInference(affine, expected.get("x"), expected.get("y"));
      assertThat(affine.countedSteps()).isEqualTo(3);
    }
  }

  private static void requireInference(
      SyncBatchNormalization layer, StoredTensor x, StoredTensor expected) {
    for (Replica replica : layer.group().replicas()) {
      try (DeviceTensor tensor = replica.allocate(DType.FLOAT32, x.shape())) {
        tensor.copyFromHost(x.data());
        layer.infer(replica, tensor, tensor);
        float[] y = tensor.copyToHost();
        float[] wanted = ConvertedFiles.floats(expected);
        for (int i = 0; i < y.length; i++) {
          assertThat(y[i]).as("y[%d]", i).isCloseTo(wanted[i], within(2e-6f));
        }
      }
    }
  }
}
