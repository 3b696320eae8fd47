package io.github.syncbn4j.state;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Files that are read as they are meant, and written so that they read back. */
class SafetensorsTest {
  static final Path REPLAY = Path.of("src/test/resources/replay");

  @TempDir Path folder;

  static List<Path> recordings() throws IOException {
    try (Stream<Path> files = Files.list(REPLAY)) {
      return files.filter(file -> file.toString().endsWith(".safetensors")).sorted().toList();
    }
  }

  @ParameterizedTest
  @MethodSource("recordings")
  void recording_roundTrips(Path recording) throws IOException {
    Safetensors read = Safetensors.read(recording);
    Path copy = folder.resolve("copy.safetensors");
    Safetensors.write(copy, read.tensors(), read.metadata());
    Safetensors again = Safetensors.read(copy);

    assertThat(again.metadata()).isEqualTo(read.metadata()).containsKeys("format", "case");
    assertThat(again.tensors().keySet()).isEqualTo(read.tensors().keySet()).isNotEmpty();
    read.tensors()
        .forEach(
            (name, tensor) -> {
              StoredTensor other = again.tensors().get(name);
              assertThat(other.dtype()).isEqualTo(tensor.dtype());
              assertThat(other.shape()).isEqualTo(tensor.shape());
              assertThat(other.data()).isEqualTo(tensor.data());
            });
    assertThat(folder).isDirectoryContaining(file -> file.equals(copy));
    assertThat(folder.toFile().list()).as("no partial file is left").hasSize(1);
  }

  @Test
  void read_values() throws IOException {
    Safetensors file = Safetensors.read(REPLAY.resolve("dense-1-replica.safetensors"));
    StoredTensor x = file.tensors().get("step.0.replica.0.x");
    assertThat(x.dtype()).isEqualTo("F32");
    assertThat(x.shape()).containsExactly(16, 7);
    assertThat(x.elements()).isEqualTo(112);
    assertThat(x.data().order()).isEqualTo(ByteOrder.LITTLE_ENDIAN);
    assertThat(x.data().isReadOnly()).isTrue();
    // Read once with another implementation of the format.
    assertThat(x.data().getFloat(0)).isEqualTo(-1.4958142f);
    assertThat(x.data().getFloat(4 * 111)).isEqualTo(-0.6148141f);
  }

  @Test
  void read_headerInAnotherOrderThanTheData() throws IOException {
    Path file =
        write(
            "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},"
                + "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                + "\"none\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[1,1]}}  ",
            new byte[] {7, 8, 9});
    Map<String, StoredTensor> tensors = Safetensors.read(file).tensors();
    assertThat(tensors.keySet()).containsExactly("a", "none", "b");
    assertThat(tensors.get("b").data().get(1)).isEqualTo((byte) 9);
    assertThat(tensors.get("none").elements()).isZero();
  }

  @Test
  void read_noTensors() throws IOException {
    Safetensors file = Safetensors.read(write("{}", new byte[0]));
    assertThat(file.tensors()).isEmpty();
    assertThat(file.metadata()).isEmpty();
  }

  @Test
  void read_fileBeyondTwoGigabytes() throws IOException {
    long most = StoredTensor.MAX_BYTES;
    String header =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[0,%d]},".formatted(most, most)
            + "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[%d,%d]}}"
                .formatted(most, most + 3);
    Path file = write(header, new byte[0]);
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.write(ByteBuffer.wrap(new byte[] {1, 2, 3}), channel.size() + most); // sparse
    }
    Map<String, StoredTensor> tensors = Safetensors.read(file).tensors();
    assertThat(tensors.get("a").elements()).isEqualTo(most);
    assertThat(tensors.get("b").data().get(2)).isEqualTo((byte) 3);
  }

  @Test
  void write_alignsElements() throws IOException {
    Map<String, StoredTensor> tensors = new LinkedHashMap<>();
    tensors.put("mask", new StoredTensor("BOOL", new long[] {3}, ByteBuffer.allocate(3)));
    tensors.put("x", new StoredTensor("F64", new long[] {}, ByteBuffer.allocate(8)));
    Path file = folder.resolve("mixed.safetensors");
    Safetensors.write(file, tensors, Map.of("note", "caf\u00e9 \"quoted\""));
    Safetensors read = Safetensors.read(file);
    assertThat(read.tensors().keySet()).containsExactly("x", "mask");
    assertThat(read.tensors().get("x").elements()).isEqualTo(1);
    assertThat(read.metadata()).containsExactly(Map.entry("note", "caf\u00e9 \"quoted\""));
    long header =
        ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN).getLong();
    assertThat(header % 8).isZero();
  }

  @Test
  void write_replacesAsAWhole() throws IOException {
    Path file = folder.resolve("state.safetensors");
    Map<String, StoredTensor> first =
        Map.of("a", new StoredTensor("U8", new long[] {1}, ByteBuffer.wrap(new byte[] {1})));
    Safetensors.write(file, first, Map.of());
    StoredTensor mapped = Safetensors.read(file).tensors().get("a");
    Safetensors.write(
        file,
        Map.of("a", new StoredTensor("U8", new long[] {1}, ByteBuffer.wrap(new byte[] {2}))),
        Map.of());
    assertThat(mapped.data().get(0)).as("the file that was read").isEqualTo((byte) 1);
    assertThat(Safetensors.read(file).tensors().get("a").data().get(0)).isEqualTo((byte) 2);
  }

  @Test
  void write_failure_leavesNothing() {
    StoredTensor one = new StoredTensor("U8", new long[] {1}, ByteBuffer.allocate(1));
    Path file = folder.resolve("bad.safetensors");
    assertThatThrownBy(() -> Safetensors.write(file, Map.of("__metadata__", one), Map.of()))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("__metadata__");
    assertThatThrownBy(() -> Safetensors.write(file, Map.of("n".repeat(5000), one), Map.of()))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("4096");
    assertThat(folder).isEmptyDirectory();
  }

  @Test
  void tensor_mustFitItsBytes() {
    assertThatThrownBy(() -> new StoredTensor("F32", new long[] {2, 3}, ByteBuffer.allocate(23)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("F32[2, 3] takes 24 bytes, not 23");
    assertThatThrownBy(() -> new StoredTensor("F32", new long[] {-2, -3}, ByteBuffer.allocate(24)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("negative dimension -2");
  }

  @Test
  void tensor_isImmutable() {
    long[] shape = {1};
    StoredTensor tensor = new StoredTensor("U8", shape, ByteBuffer.allocate(1));
    shape[0] = 5;
    tensor.shape()[0] = 6;
    tensor.data().position(1);
    assertThat(tensor.shape()).containsExactly(1);
    assertThat(tensor.data().remaining()).isEqualTo(1);
  }

  private Path write(String header, byte[] data) throws IOException {
    return SafetensorsHostileTest.write(folder.resolve("made.safetensors"), header, data);
  }
}
