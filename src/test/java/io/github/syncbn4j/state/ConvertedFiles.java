package io.github.syncbn4j.state;

import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Map;
import java.util.OptionalLong;

/** Files of the real frameworks, whose README says how they were made, and tensors for tests. */
public final class ConvertedFiles {
  private ConvertedFiles() {}

  /**
   * {@code model.keras} and {@code model.h5}, {@code net.weights.h5}, {@code module.safetensors}.
   */
  public static Path file(String name) {
    try {
      return Path.of(ConvertedFiles.class.getResource("/convert/" + name).toURI());
    } catch (URISyntaxException e) {
      throw new AssertionError(name, e);
    }
  }

  /** What the framework that wrote {@code name} has in it and makes of x. */
  public static Map<String, StoredTensor> expected(String name) throws IOException {
    return Safetensors.read(file(name + ".expected.safetensors")).tensors();
  }

  /** As {@code syncbn convert}. */
  public static Conversion convert(Path file, Naming to) throws IOException {
    ModelFile model = ModelFile.read(file);
    return Conversion.of(BatchNorms.of(model, model.naming()), to, OptionalLong.empty());
  }

  public static float[] floats(StoredTensor tensor) {
    float[] values = new float[(int) tensor.elements()];
    tensor.data().asFloatBuffer().get(values);
    return values;
  }

  public static StoredTensor floats(float... values) {
    ByteBuffer data =
        ByteBuffer.allocate(values.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    data.asFloatBuffer().put(values);
    return new StoredTensor("F32", new long[] {values.length}, data);
  }

  public static StoredTensor count(long steps) {
    ByteBuffer data = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    return new StoredTensor("I64", new long[0], data.putLong(steps).flip());
  }
}
