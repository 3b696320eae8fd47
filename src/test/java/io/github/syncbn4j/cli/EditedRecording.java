package io.github.syncbn4j.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StoredTensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Predicate;

/** A recording of the test resources, to be changed and written elsewhere. */
final class EditedRecording {
  static final Path REPLAY = Path.of("src/test/resources/replay");

  final Map<String, StoredTensor> tensors;
  final Map<String, String> metadata;

  EditedRecording(String name) throws IOException {
    Safetensors file = Safetensors.read(REPLAY.resolve(name + ".safetensors"));
    tensors = new LinkedHashMap<>(file.tensors());
    metadata = new LinkedHashMap<>(file.metadata());
  }

  static boolean isInput(String tensor) {
    return tensor.startsWith("initial.") || tensor.matches(".*\\.(x|dy|mask)");
  }

  EditedRecording keep(Predicate<String> names) {
    tensors.keySet().removeIf(names.negate());
    return this;
  }

  EditedRecording remove(String name) {
    if (tensors.remove(name) == null) {
      throw new IllegalArgumentException("no tensor " + name);
    }
    return this;
  }

  /** Sets one element of a float32 tensor. */
  EditedRecording set(String name, int element, float value) {
    StoredTensor tensor = tensors.get(name);
    ByteBuffer values =
        ByteBuffer.allocate(tensor.data().capacity()).order(ByteOrder.LITTLE_ENDIAN);
    values.put(tensor.data()).flip().putFloat(element * Float.BYTES, value);
    tensors.put(name, new StoredTensor(tensor.dtype(), tensor.shape(), values));
    return this;
  }

  float get(String name, int element) {
    return tensors.get(name).data().getFloat(element * Float.BYTES);
  }

  /** Puts zeros of another dtype or shape in the place of a tensor. */
  EditedRecording zeros(String name, String dtype, int bytes, long... shape) {
    tensors.put(name, new StoredTensor(dtype, shape, ByteBuffer.allocate(bytes)));
    return this;
  }

  /** Gives each of {@code replicas} replicas the inputs of replica 0. */
  EditedRecording repeatReplica(int replicas) {
    for (Map.Entry<String, StoredTensor> entry : List.copyOf(tensors.entrySet())) {
      for (int replica = 1;
          replica < replicas && entry.getKey().contains(".replica.0.");
          replica++) {
        String name = entry.getKey().replace(".replica.0.", ".replica." + replica + ".");
        tensors.put(name, entry.getValue());
      }
    }
    return this;
  }

  EditedRecording editCase(Consumer<ObjectNode> edit) throws IOException {
    ObjectMapper json = new ObjectMapper();
    ObjectNode root = (ObjectNode) json.readTree(metadata.get("case"));
    edit.accept(root);
    metadata.put("case", json.writeValueAsString(root));
    return this;
  }

  Path write(Path file) throws IOException {
    Safetensors.write(file, tensors, metadata);
    return file;
  }
}
