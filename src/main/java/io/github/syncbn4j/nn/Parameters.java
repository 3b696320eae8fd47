package io.github.syncbn4j.nn;

import io.github.syncbn4j.check.Shown;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The {@code config} of one object while it is read: each parameter is taken once, and what is left
 * at the end is an error.
 *
 * <p>Errors are {@link IllegalArgumentException}s that name the object's class, the key and the
 * value.
 */
final class Parameters {
  private final String className;
  private final Map<Object, Object> left;
  private final List<String> known = new ArrayList<>();

  Parameters(String className, Map<?, ?> config) {
    this.className = className;
    this.left = new LinkedHashMap<>(config);
  }

  double number(String key, double absent) {
    return left.containsKey(key) ? number(key, take(key)) : absent(key, absent);
  }

  /** A number for which Python's {@code None} means the default. */
  double optionalNumber(String key, double absent) {
    return left.get(key) == null ? absent(key, absent) : number(key, absent);
  }

  String text(String key, String absent) {
    if (!left.containsKey(key)) {
      return absent(key, absent);
    }
    Object value = take(key);
    if (value instanceof String text) {
      return text;
    }
    throw wrong(key, "a string", value);
  }

  /** The seed, or null for a fresh one each time. */
  Long seed() {
    Object value = take("seed");
    return value == null ? null : (Long) whole("seed", "an integer or null", value);
  }

  Axes axis() {
    if (!left.containsKey("axis")) {
      return absent("axis", Axes.FIRST);
    }
    String wanted = "an integer, a list of integers or null";
    Object value = take("axis");
    if (value == null) {
      return Axes.ALL;
    }
    if (!(value instanceof List<?> list)) {
      return Axes.one(whole("axis", wanted, value));
    }
    List<Long> axes = new ArrayList<>();
    for (Object axis : list) {
      axes.add(whole("axis", wanted, axis));
    }
    return Axes.list(axes);
  }

  /** Takes a parameter of other versions of Keras that changes nothing here. */
  void ignore(String key) {
    left.remove(key);
  }

  void requireNoneLeft() {
    for (Object key : left.keySet()) {
      throw new IllegalArgumentException(
          "%s: unknown key %s, known are %s".formatted(className, Shown.quoted(key), known));
    }
  }

  private Object take(String key) {
    known.add(key);
    return left.remove(key);
  }

  private <V> V absent(String key, V value) {
    take(key);
    return value;
  }

  private double number(String key, Object value) {
    if (value instanceof Number number) {
      return number.doubleValue();
    }
    throw wrong(key, "a number", value);
  }

  private long whole(String key, String wanted, Object value) {
    if (value instanceof Long
        || value instanceof Integer
        || value instanceof Short
        || value instanceof Byte) {
      return ((Number) value).longValue();
    }
    throw wrong(key, wanted, value);
  }

  private IllegalArgumentException wrong(String key, String wanted, Object value) {
    return new IllegalArgumentException(
        "%s: \"%s\" must be %s, got %s".formatted(className, key, wanted, Shown.quoted(value)));
  }
}
