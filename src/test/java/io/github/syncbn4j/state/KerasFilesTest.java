package io.github.syncbn4j.state;

import static io.github.syncbn4j.state.ConvertedFiles.file;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.jhdf.HdfFile;
import io.jhdf.WritableHdfFile;
import io.jhdf.api.WritableGroup;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.function.Consumer;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Keras' files that are damaged, hostile, or leave something open. */
@Timeout(60)
class KerasFilesTest {
  @TempDir Path folder;

  private Path hdf5(Consumer<WritableHdfFile> content) {
    Path file = folder.resolve("made.weights.h5");
    try (WritableHdfFile hdf = HdfFile.write(file)) {
      content.accept(hdf);
    }
    return file;
  }

  private static void putVariables(WritableGroup layer, int count) {
    WritableGroup variables = layer.putGroup("vars");
    for (int i = 0; i < count; i++) {
      variables.putDataset(Integer.toString(i), new float[] {i, i});
    }
  }

  @Test
  void layersOfOneName_areNamedByTheirPath() throws IOException {
    Path file =
        hdf5(
            hdf -> {
              for (String model : new String[] {"a", "b"}) {
                putVariables(hdf.putGroup(model).putGroup("batch_normalization"), 2);
              }
            });
    assertThat(ModelFile.read(file).tensors().keySet())
        .containsExactlyInAnyOrder(
            "a/batch_normalization/moving_mean",
            "a/batch_normalization/moving_variance",
            "b/batch_normalization/moving_mean",
            "b/batch_normalization/moving_variance");
  }

  /** As tf.keras wrote them before Keras 3. */
  @Test
  void numberBehindAName_isLeftOut() throws IOException {
    Path file =
        hdf5(
            hdf -> {
              WritableGroup layer =
                  hdf.putGroup("model_weights").putGroup("bn").putGroup("model").putGroup("bn");
              for (String name : List.of("gamma:0", "moving_mean:0", "moving_variance:0")) {
                layer.putDataset(name, new float[] {1, 2});
              }
            });
    assertThat(ModelFile.read(file).tensors().keySet())
        .containsExactlyInAnyOrder("bn/gamma", "bn/moving_mean", "bn/moving_variance");
  }

  @Test
  void gammaOrBeta_isNotGuessed() {
    Path file = hdf5(hdf -> putVariables(hdf.putGroup("batch_normalization_1"), 3));
    assertThatThrownBy(() -> ModelFile.read(file))
        .isInstanceOf(StateException.class)
        .hasMessage(
            "%s: \"batch_normalization_1/vars\" has 3 variables, one of them gamma or beta, and the file does not say which: give the model's .keras file, or what %s writes",
            file, KerasNames.BY_NAME);
  }

  @Test
  void otherLayers_andWhatHasNoNumbers_areNotTakenForOne() throws IOException {
    Path file =
        hdf5(
            hdf -> {
              putVariables(hdf.putGroup("layer_normalization"), 2);
              putVariables(hdf.putGroup("optimizer"), 4);
              hdf.putDataset("note", "text");
            });
    ModelFile read = ModelFile.read(file);
    assertThat(read.tensors())
        .hasSize(6)
        .containsKeys("layer_normalization/vars/0", "optimizer/vars/3");
    assertThat(read.leftOut()).singleElement().asString().startsWith("note (");
    assertThatThrownBy(read::naming).hasMessageContaining("no batch normalization");
  }

  @Test
  void truncatedFiles_areRefused() throws IOException {
    for (String name : new String[] {"net.weights.h5", "model.keras", "model.h5"}) {
      byte[] whole = Files.readAllBytes(file(name));
      Path cut = folder.resolve(name);
      for (int length = 0; length < whole.length - 1; length += whole.length / 23) {
        Files.write(cut, Arrays.copyOf(whole, length));
        assertThatThrownBy(() -> ModelFile.read(cut))
            .as("%s cut to %d bytes", name, length)
            .isInstanceOf(IOException.class)
            .hasMessageStartingWith(cut + ": ");
      }
    }
  }

  /** Any byte may be wrong: what is read then is an error or a file, and it ends. */
  @Test
  void damagedFiles_endInAnIOException() throws IOException {
    byte[] whole = Files.readAllBytes(file("net.weights.h5"));
    Path damaged = folder.resolve("damaged.weights.h5");
    long seed = Long.getLong("syncbn.seed", System.nanoTime());
    System.out.println("KerasFilesTest: -Dsyncbn.seed=" + seed);
    Random random = new Random(seed);
    int refused = 0;
    for (int i = 0; i < 200; i++) {
      byte[] bytes = whole.clone();
      bytes[random.nextInt(i < 100 ? 2048 : bytes.length)] = (byte) random.nextInt();
      Files.write(damaged, bytes);
      try {
        ModelFile.read(damaged);
      } catch (IOException e) {
        assertThat(e).hasMessageStartingWith(damaged + ": ");
        refused++;
      }
    }
    assertThat(refused).isPositive();
  }

  @Test
  void archivesOfOthers_areRefused() throws IOException {
    assertThatThrownBy(() -> ModelFile.read(zip("archive/data.pkl", new byte[1])))
        .hasMessageContaining("safetensors.torch.save_file(model.state_dict(), FILE)");
    assertThatThrownBy(() -> ModelFile.read(zip("holiday.jpg", new byte[1])))
        .hasMessageContaining("a zip archive without model.weights.h5");
    assertThatThrownBy(() -> ModelFile.read(zip("model.weights.h5", new byte[100])))
        .hasMessageContaining("HDF5 that cannot be read");
    Path pickle = Files.write(folder.resolve("old.pt"), new byte[] {(byte) 0x80, 2, 0x7d, 0x2e});
    assertThatThrownBy(() -> ModelFile.read(pickle)).hasMessageContaining("a pickle of PyTorch's");
    Path djl = Files.write(folder.resolve("net-0000.params"), "DJL@....".getBytes());
    assertThatThrownBy(() -> ModelFile.read(djl)).hasMessageContaining("DJL's own format");
  }

  private Path zip(String entry, byte[] content) throws IOException {
    Path file = folder.resolve("made.keras");
    try (OutputStream out = Files.newOutputStream(file);
        ZipOutputStream entries = new ZipOutputStream(out)) {
      entries.putNextEntry(new ZipEntry(entry));
      entries.write(content);
    }
    return file;
  }
}
