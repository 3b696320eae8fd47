package io.github.syncbn4j.nn;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamWriteFeature;
import com.fasterxml.jackson.core.json.JsonReadFeature;
import io.github.syncbn4j.check.Shown;
import java.io.IOException;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The format of a layer's configuration: Keras' {@code get_config} as JSON text.
 *
 * <p>Read, an object is a {@link LinkedHashMap} in the text's order, an array an {@link ArrayList},
 * a number without a fraction or an exponent a {@link Long}, another number a {@link Double}, and
 * the rest a String, a Boolean or null. Written and read again, a configuration of these is equal
 * to itself.
 *
 * <p>Refused both ways, with {@link IllegalArgumentException}s that name the place: more than
 * {@value #MAX_DEPTH} levels, NaN and infinities. Refused when read: a key that is there twice,
 * integers beyond 64 bits, and anything but one object.
 */
public final class ConfigJson {
  /** The most objects and arrays within each other. */
  static final int MAX_DEPTH = 32;

  /**
   * Non-numbers are read to be refused with their place. Keys come from a file: no table of them is
   * kept, so none can be flooded. Doubles have the shortest text on every Java release.
   */
  private static final JsonFactory JSON =
      JsonFactory.builder()
          .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
          .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
          .enable(JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS)
          .enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER)
          .build();

  /** A value's place, spelled out only in an error. */
  private record Place(Place parent, String step) {
    static final Place TOP = new Place(null, "configuration");

    Place key(String key) {
      return new Place(this, "." + Shown.plain(key));
    }

    Place index(int index) {
      return new Place(this, "[" + index + "]");
    }

    int depth() {
      return parent == null ? 1 : parent.depth() + 1;
    }

    IllegalArgumentException error(String problem) {
      return new IllegalArgumentException(this + ": " + problem);
    }

    void requireDepth() {
      if (depth() > MAX_DEPTH) {
        throw error("more than " + MAX_DEPTH + " levels deep, the limit");
      }
    }

    @Override
    public String toString() {
      return parent == null ? step : parent + step;
    }
  }

  private ConfigJson() {}

  /**
   * The configuration in a JSON text.
   *
   * @throws IllegalArgumentException for a text that is not one JSON object, or is refused; see the
   *     class
   */
  public static Map<String, Object> read(String json) {
    try (JsonParser parser = JSON.createParser(json)) {
      try {
        return readOnlyObject(parser);
      } catch (JsonProcessingException e) {
        // Not the exception's own location: where a limit of the parser is hit, it has none.
        throw new IllegalArgumentException(
            "%s: not valid JSON at line %d, column %d: %s"
                .formatted(
                    Place.TOP,
                    parser.currentLocation().getLineNr(),
                    parser.currentLocation().getColumnNr(),
                    e.getOriginalMessage()),
            e);
      }
    } catch (IOException e) {
      throw new UncheckedIOException("a string cannot fail to be read", e);
    }
  }

  /**
   * The JSON text of a configuration, on one line.
   *
   * @param config keys and values as {@link #read} gives them; any integer type up to 64 bits, and
   *     {@code float} as the double of the same value
   * @throws IllegalArgumentException for values of other types, or that are refused; see the class
   */
  public static String write(Map<String, ?> config) {
    StringWriter text = new StringWriter();
    try (JsonGenerator generator = JSON.createGenerator(text)) {
      writeValue(generator, config, Place.TOP);
    } catch (IOException e) {
      throw new UncheckedIOException("a string cannot fail to be written", e);
    }
    return text.toString();
  }

  private static Map<String, Object> readOnlyObject(JsonParser parser) throws IOException {
    if (parser.nextToken() != JsonToken.START_OBJECT) {
      throw Place.TOP.error(
          "must be a JSON object, got "
              + (parser.currentToken() == null ? "no text" : Shown.quoted(parser.getText())));
    }
    Map<String, Object> config = readObject(parser, Place.TOP);
    if (parser.nextToken() != null) {
      throw Place.TOP.error("text after the JSON object: " + Shown.quoted(parser.getText()));
    }
    return config;
  }

  private static Map<String, Object> readObject(JsonParser parser, Place place) throws IOException {
    place.requireDepth();
    Map<String, Object> object = new LinkedHashMap<>();
    while (parser.nextToken() != JsonToken.END_OBJECT) {
      String key = parser.currentName();
      Place at = place.key(key);
      if (object.containsKey(key)) {
        throw at.error("this key is there twice");
      }
      parser.nextToken();
      object.put(key, readValue(parser, at));
    }
    return object;
  }

  private static List<Object> readArray(JsonParser parser, Place place) throws IOException {
    place.requireDepth();
    List<Object> array = new ArrayList<>();
    while (parser.nextToken() != JsonToken.END_ARRAY) {
      array.add(readValue(parser, place.index(array.size())));
    }
    return array;
  }

  private static Object readValue(JsonParser parser, Place place) throws IOException {
    return switch (parser.currentToken()) {
      case START_OBJECT -> readObject(parser, place);
      case START_ARRAY -> readArray(parser, place);
      case VALUE_STRING -> parser.getText();
      case VALUE_TRUE -> true;
      case VALUE_FALSE -> false;
      case VALUE_NULL -> null;
      case VALUE_NUMBER_INT -> {
        if (parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER) {
          throw place.error(Shown.plain(parser.getText()) + " is beyond a 64-bit integer");
        }
        yield parser.getLongValue();
      }
      case VALUE_NUMBER_FLOAT -> {
        double value = parser.getDoubleValue();
        if (!Double.isFinite(value)) {
          throw place.error(Shown.plain(parser.getText()) + " is not a finite number");
        }
        yield value;
      }
      default -> throw place.error("unexpected " + parser.currentToken());
    };
  }

  private static void writeValue(JsonGenerator generator, Object value, Place place)
      throws IOException {
    if (value instanceof Map<?, ?> object) {
      place.requireDepth();
      generator.writeStartObject();
      for (Map.Entry<?, ?> entry : object.entrySet()) {
        if (!(entry.getKey() instanceof String key)) {
          throw place.error("a key must be a string, got " + Shown.plain(entry.getKey()));
        }
        generator.writeFieldName(key);
        writeValue(generator, entry.getValue(), place.key(key));
      }
      generator.writeEndObject();
    } else if (value instanceof List<?> array) {
      place.requireDepth();
      generator.writeStartArray();
      for (int i = 0; i < array.size(); i++) {
        writeValue(generator, array.get(i), place.index(i));
      }
      generator.writeEndArray();
    } else if (value instanceof Double || value instanceof Float) {
      double number = ((Number) value).doubleValue();
      if (!Double.isFinite(number)) {
        throw place.error(number + " is not a finite number");
      }
      generator.writeNumber(number);
    } else if (value instanceof Long
        || value instanceof Integer
        || value instanceof Short
        || value instanceof Byte) {
      generator.writeNumber(((Number) value).longValue());
    } else if (value instanceof String text) {
      generator.writeString(text);
    } else if (value instanceof Boolean bool) {
      generator.writeBoolean(bool);
    } else if (value == null) {
      generator.writeNull();
    } else {
      throw place.error("a value of " + value.getClass() + " has no JSON text");
    }
  }
}
