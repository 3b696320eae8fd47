package io.github.syncbn4j.state;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import io.github.syncbn4j.check.Shown;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The contents of a safetensors file: named tensors and text metadata.
 *
 * <p>Immutable and safe for use by many threads. The tensors' bytes are mapped, not read: the file
 * must not be written to or shortened while they are in use (replacing it by another, as {@link
 * #write} does, is harmless).
 *
 * <p>The whole file may be larger than 2 GB, each tensor may have up to {@link
 * StoredTensor#MAX_BYTES} bytes.
 */
public final class Safetensors {
  /** The most bytes of a header, as in the format's reference implementation. */
  public static final int MAX_HEADER_BYTES = 100_000_000;

  /** Name of the text that says whose file it is. */
  static final String FORMAT = "format";

  /** What it says of a layer's state. */
  static final String STATE_FORMAT = "syncbn4j-state/1";

  /**
   * Where the header's length makes the data begin at a multiple of this, mapped elements are
   * aligned.
   */
  private static final int ALIGNMENT = 8;

  private static final JsonFactory JSON = new JsonFactory();

  private final Map<String, String> metadata;
  private final Map<String, StoredTensor> tensors;

  private Safetensors(Map<String, String> metadata, Map<String, StoredTensor> tensors) {
    this.metadata = Collections.unmodifiableMap(metadata);
    this.tensors = Collections.unmodifiableMap(tensors);
  }

  /** The text metadata, in file order; empty if there is none. Unmodifiable. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The tensors by name, in the order of their bytes. Unmodifiable. */
  public Map<String, StoredTensor> tensors() {
    return tensors;
  }

  // ---------------------------------------------------------------------------------- reading

  /**
   * Reads a file.
   *
   * @throws SafetensorsException if it is no regular file, not valid safetensors, or beyond a limit
   * @throws IOException if it is not there or cannot be read
   */
  public static Safetensors read(Path file) throws IOException {
    if (!Files.exists(file)) {
      throw new NoSuchFileException(file.toString(), null, "no such file");
    }
    if (!Files.isRegularFile(file)) {
      throw new SafetensorsException(file, "not a regular file", null);
    }
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      return read(channel);
    } catch (SafetensorsHeader.Invalid e) {
      throw new SafetensorsException(file, e.getMessage(), e.getCause());
    }
  }

  private static Safetensors read(FileChannel channel)
      throws IOException, SafetensorsHeader.Invalid {
    long size = channel.size();
    if (size < Long.BYTES) {
      throw new SafetensorsHeader.Invalid(
          "%d bytes, a header needs at least %d".formatted(size, Long.BYTES));
    }
    long length = readFully(channel, 0, Long.BYTES).getLong();
    if (length < 0 || length > MAX_HEADER_BYTES) {
      throw new SafetensorsHeader.Invalid(
          "header of %s bytes, the limit is %d (not safetensors?)"
              .formatted(Long.toUnsignedString(length), MAX_HEADER_BYTES));
    }
    long dataBegin = Long.BYTES + length;
    if (dataBegin > size) {
      throw new SafetensorsHeader.Invalid(
          "header of %d bytes in a file of %d (truncated?)".formatted(length, size));
    }
    long dataBytes = size - dataBegin;
    byte[] json = readFully(channel, Long.BYTES, (int) length).array();
    SafetensorsHeader header = SafetensorsHeader.parse(json, dataBytes);
    return new Safetensors(
        header.metadata(), map(channel, dataBegin, header.inOrderOfData(dataBytes)));
  }

  private static ByteBuffer readFully(FileChannel channel, long position, int bytes)
      throws IOException, SafetensorsHeader.Invalid {
    ByteBuffer buffer = ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    while (buffer.hasRemaining()) {
      if (channel.read(buffer, position + buffer.position()) < 0) {
        throw new SafetensorsHeader.Invalid("the file became shorter while it was read");
      }
    }
    return buffer.flip();
  }

  /** Few mappings, each of as many whole tensors as one buffer can hold. */
  private static Map<String, StoredTensor> map(
      FileChannel channel, long dataBegin, List<SafetensorsHeader.Entry> entries)
      throws IOException {
    Map<String, StoredTensor> tensors = new LinkedHashMap<>();
    int first = 0;
    while (first < entries.size()) {
      long begin = entries.get(first).begin();
      int after = first + 1;
      while (after < entries.size() && entries.get(after).end() - begin <= Integer.MAX_VALUE) {
        after++;
      }
      long bytes = entries.get(after - 1).end() - begin;
      ByteBuffer mapped = channel.map(FileChannel.MapMode.READ_ONLY, dataBegin + begin, bytes);
      for (SafetensorsHeader.Entry entry : entries.subList(first, after)) {
        int from = (int) (entry.begin() - begin);
        ByteBuffer data = mapped.slice(from, (int) (entry.end() - entry.begin()));
        tensors.put(entry.name(), new StoredTensor(entry.dtype(), entry.shape(), data));
      }
      first = after;
    }
    return tensors;
  }

  // ---------------------------------------------------------------------------------- writing

  /**
   * Writes a file as a whole or not at all, as {@link AtomicFile}: no reader ever sees a part.
   *
   * @param tensors written in this order, those with larger elements first so that all are aligned
   * @throws IllegalArgumentException for a tensor named {@code __metadata__}, or a header beyond
   *     {@link #MAX_HEADER_BYTES}
   */
  public static void write(
      Path file, Map<String, StoredTensor> tensors, Map<String, String> metadata)
      throws IOException {
    if (tensors.size() > SafetensorsHeader.MAX_ENTRIES) {
      throw new IllegalArgumentException(
          tensors.size() + " tensors, the limit is " + SafetensorsHeader.MAX_ENTRIES);
    }
    List<Map.Entry<String, StoredTensor>> ordered = new ArrayList<>(tensors.entrySet());
    ordered.sort(
        Comparator.comparingInt(entry -> -StoredTensor.elementBytes(entry.getValue().dtype())));
    ByteBuffer header = header(ordered, metadata);
    AtomicFile.write(
        file,
        channel -> {
          AtomicFile.writeFully(channel, header);
          for (Map.Entry<String, StoredTensor> entry : ordered) {
            AtomicFile.writeFully(channel, entry.getValue().data());
          }
        });
  }

  private static ByteBuffer header(
      List<Map.Entry<String, StoredTensor>> tensors, Map<String, String> metadata)
      throws IOException {
    ByteArrayOutputStream json = new ByteArrayOutputStream();
    try (JsonGenerator generator = JSON.createGenerator(json)) {
      generator.writeStartObject();
      if (!metadata.isEmpty()) {
        generator.writeObjectFieldStart(SafetensorsHeader.METADATA);
        for (Map.Entry<String, String> entry : metadata.entrySet()) {
          generator.writeStringField(entry.getKey(), entry.getValue());
        }
        generator.writeEndObject();
      }
      long begin = 0;
      for (Map.Entry<String, StoredTensor> entry : tensors) {
        begin = writeEntry(generator, entry.getKey(), entry.getValue(), begin);
      }
      generator.writeEndObject();
    }
    int padding = -json.size() & (ALIGNMENT - 1);
    int length = json.size() + padding;
    if (length > MAX_HEADER_BYTES) {
      throw new IllegalArgumentException(
          "header of " + length + " bytes, the limit is " + MAX_HEADER_BYTES);
    }
    byte[] spaces = new byte[padding];
    Arrays.fill(spaces, (byte) ' ');
    return ByteBuffer.allocate(Long.BYTES + length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(length)
        .put(json.toByteArray())
        .put(spaces)
        .flip();
  }

  private static long writeEntry(
      JsonGenerator generator, String name, StoredTensor tensor, long begin) throws IOException {
    if (name.equals(SafetensorsHeader.METADATA) || name.length() > SafetensorsHeader.MAX_NAME) {
      throw new IllegalArgumentException(
          "a tensor's name must have at most %d characters and not be %s: %s"
              .formatted(
                  SafetensorsHeader.MAX_NAME, SafetensorsHeader.METADATA, Shown.quoted(name)));
    }
    long end = begin + tensor.data().remaining();
    generator.writeObjectFieldStart(name);
    generator.writeStringField("dtype", tensor.dtype());
    generator.writeFieldName("shape");
    long[] shape = tensor.shape();
    generator.writeArray(shape, 0, shape.length);
    generator.writeFieldName("data_offsets");
    generator.writeArray(new long[] {begin, end}, 0, 2);
    generator.writeEndObject();
    return end;
  }
}
