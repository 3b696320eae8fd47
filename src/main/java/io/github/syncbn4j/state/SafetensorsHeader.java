package io.github.syncbn4j.state;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import io.github.syncbn4j.check.Shown;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/**
 * The JSON header of a safetensors file, checked against the format and against the bytes that
 * follow it.
 *
 * <p>Nothing is allocated by a length that the file claims: lists grow with what is really there,
 * and names, numbers, nesting and the number of tensors have limits.
 */
final class SafetensorsHeader {
  static final String METADATA = "__metadata__";

  /** The most tensors, and the most metadata texts. */
  static final int MAX_ENTRIES = 1 << 16;

  /** The most characters of a name. */
  static final int MAX_NAME = 4096;

  private static final int MAX_DEPTH = 16;
  private static final int MAX_DIGITS = 32;

  /** Field names come from the file: no table of them is kept, so none can be flooded. */
  private static final JsonFactory JSON =
      JsonFactory.builder()
          .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
          .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNestingDepth(MAX_DEPTH)
                  .maxNameLength(MAX_NAME)
                  .maxNumberLength(MAX_DIGITS)
                  .build())
          .build();

  /** One tensor: its bytes are {@code [begin, end)} of the data. */
  record Entry(String name, String dtype, long[] shape, long begin, long end) {}

  /** What is wrong with a header, without the file's name. */
  static final class Invalid extends Exception {
    private static final long serialVersionUID = 1L;

    Invalid(String problem, Throwable cause) {
      super(problem, cause);
    }

    Invalid(String problem) {
      this(problem, null);
    }
  }

  private final Map<String, String> metadata = new LinkedHashMap<>();
  private final Map<String, Entry> entries = new LinkedHashMap<>();
  private boolean metadataSeen;

  private SafetensorsHeader() {}

  /**
   * Reads a header.
   *
   * @param json the header's bytes
   * @param dataBytes how many bytes follow it in the file
   */
  static SafetensorsHeader parse(byte[] json, long dataBytes) throws Invalid {
    if (json.length == 0 || json[0] != '{') {
      throw new Invalid("the header must begin with '{'");
    }
    SafetensorsHeader header = new SafetensorsHeader();
    try (Reader text = utf8(json);
        JsonParser parser = JSON.createParser(text)) {
      parser.nextToken();
      header.read(parser, dataBytes);
      if (parser.nextToken() != null) {
        throw new Invalid("the header has text after its JSON object");
      }
    } catch (CharacterCodingException e) {
      throw new Invalid("the header is not UTF-8", e);
    } catch (JsonProcessingException e) {
      throw new Invalid("the header is not valid JSON: " + e.getOriginalMessage(), e);
    } catch (IOException e) {
      throw new Invalid("the header cannot be read: " + e.getMessage(), e);
    }
    return header;
  }

  private static Reader utf8(byte[] bytes) {
    return new InputStreamReader(
        new ByteArrayInputStream(bytes),
        StandardCharsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT));
  }

  Map<String, String> metadata() {
    return metadata;
  }

  /**
   * The tensors in the order of their bytes, which is not always that of their names in the header.
   *
   * @throws Invalid unless they cover the data exactly
   */
  List<Entry> inOrderOfData(long dataBytes) throws Invalid {
    List<Entry> sorted = new ArrayList<>(entries.values());
    sorted.sort(Comparator.comparingLong(Entry::begin).thenComparingLong(Entry::end));
    long covered = 0;
    Entry before = null;
    for (Entry entry : sorted) {
      if (entry.begin() != covered) {
        throw new Invalid(
            "tensor %s begins at byte %d of the data, but %s ends at %d: %s"
                .formatted(
                    Shown.quoted(entry.name()),
                    entry.begin(),
                    before == null ? "the header" : "tensor " + Shown.quoted(before.name()),
                    covered,
                    entry.begin() < covered ? "they overlap" : "there is a gap"));
      }
      covered = entry.end();
      before = entry;
    }
    if (covered != dataBytes) {
      throw new Invalid(
          "%d bytes of data, but the tensors end at %d: trailing bytes"
              .formatted(dataBytes, covered));
    }
    return sorted;
  }

  private void read(JsonParser parser, long dataBytes) throws IOException, Invalid {
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      String name = parser.currentName();
      parser.nextToken();
      if (name.equals(METADATA)) {
        readMetadata(parser);
        continue;
      }
      if (entries.size() == MAX_ENTRIES) {
        throw new Invalid("more than " + MAX_ENTRIES + " tensors, the limit");
      }
      if (entries.put(name, readTensor(parser, name, dataBytes)) != null) {
        throw new Invalid("tensor " + Shown.quoted(name) + " is there twice");
      }
    }
  }

  private void readMetadata(JsonParser parser) throws IOException, Invalid {
    if (metadataSeen) {
      throw new Invalid(METADATA + " is there twice");
    }
    metadataSeen = true;
    require(parser, JsonToken.START_OBJECT, () -> METADATA, "an object");
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      String key = parser.currentName();
      parser.nextToken();
      if (metadata.size() == MAX_ENTRIES) {
        throw new Invalid(METADATA + " has more than " + MAX_ENTRIES + " texts, the limit");
      }
      require(parser, JsonToken.VALUE_STRING, () -> METADATA + " " + Shown.quoted(key), "a string");
      if (metadata.put(key, parser.getText()) != null) {
        throw new Invalid(METADATA + " " + Shown.quoted(key) + " is there twice");
      }
    }
  }

  private static Entry readTensor(JsonParser parser, String name, long dataBytes)
      throws IOException, Invalid {
    Supplier<String> tensor = () -> "tensor " + Shown.quoted(name);
    require(parser, JsonToken.START_OBJECT, tensor, "an object");
    String dtype = null;
    long[] shape = null;
    long[] offsets = null;
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      String key = parser.currentName();
      Supplier<String> where = () -> tensor.get() + ": " + Shown.quoted(key);
      parser.nextToken();
      boolean twice;
      switch (key) {
        case "dtype" -> {
          twice = dtype != null;
          require(parser, JsonToken.VALUE_STRING, where, "a string");
          dtype = parser.getText();
        }
        case "shape" -> {
          twice = shape != null;
          shape = readLongs(parser, where, StoredTensor.MAX_RANK);
        }
        case "data_offsets" -> {
          twice = offsets != null;
          offsets = readLongs(parser, where, 2);
        }
        default -> throw new Invalid(where.get() + " is no key of a tensor");
      }
      if (twice) {
        throw new Invalid(where.get() + " is there twice");
      }
    }
    if (dtype == null || shape == null || offsets == null) {
      throw new Invalid(
          "%s has no %s"
              .formatted(
                  tensor.get(),
                  dtype == null ? "dtype" : shape == null ? "shape" : "data_offsets"));
    }
    if (offsets.length != 2) {
      throw new Invalid(tensor.get() + ": data_offsets must be two numbers, not " + offsets.length);
    }
    checkBytes(tensor, dtype, shape, offsets[0], offsets[1], dataBytes);
    return new Entry(name, dtype, shape, offsets[0], offsets[1]);
  }

  private static void checkBytes(
      Supplier<String> tensor, String dtype, long[] shape, long begin, long end, long dataBytes)
      throws Invalid {
    Supplier<String> offsets =
        () -> "%s: data_offsets [%d, %d]".formatted(tensor.get(), begin, end);
    if (begin > end) {
      throw new Invalid(offsets.get() + ": the end is before the begin");
    }
    if (end > dataBytes) {
      throw new Invalid(
          "%s: the file has %d bytes of data (truncated?)".formatted(offsets.get(), dataBytes));
    }
    long bytes;
    try {
      bytes = StoredTensor.bytes(dtype, shape);
    } catch (IllegalArgumentException e) {
      throw new Invalid(tensor.get() + ": " + e.getMessage(), e);
    }
    if (bytes != end - begin) {
      throw new Invalid(
          "%s: these are %d bytes, dtype and shape make %d"
              .formatted(offsets.get(), end - begin, bytes));
    }
  }

  private static long[] readLongs(JsonParser parser, Supplier<String> where, int most)
      throws IOException, Invalid {
    require(parser, JsonToken.START_ARRAY, where, "an array");
    long[] values = new long[most];
    int count = 0;
    while (parser.nextToken() != JsonToken.END_ARRAY) {
      require(parser, JsonToken.VALUE_NUMBER_INT, where, "an array of integers");
      if (count == most) {
        throw new Invalid(where.get() + " has more than " + most + " numbers, the limit");
      }
      if (parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER
          || parser.getLongValue() < 0) {
        throw new Invalid(where.get() + " has " + parser.getText() + ", allowed is 0 to 2^63 - 1");
      }
      values[count++] = parser.getLongValue();
    }
    return Arrays.copyOf(values, count);
  }

  /**
   * {@code where} is only asked for where it goes wrong: a header may have many thousands of
   * tensors.
   */
  private static void require(
      JsonParser parser, JsonToken wanted, Supplier<String> where, String what)
      throws IOException, Invalid {
    JsonToken found = parser.currentToken();
    if (found == null) {
      throw new Invalid("the header ends within " + where.get());
    }
    if (found != wanted) {
      throw new Invalid(
          "%s must be %s, found %s".formatted(where.get(), what, Shown.quoted(parser.getText())));
    }
  }
}
