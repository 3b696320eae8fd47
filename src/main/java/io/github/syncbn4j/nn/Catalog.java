package io.github.syncbn4j.nn;

import io.github.syncbn4j.check.Shown;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;

/**
 * Keras' objects of one kind, by each of their names.
 *
 * @param <T> the kind
 */
final class Catalog<T> {
  /** What newer versions write beside class and configuration; the class is known without. */
  private static final Set<String> IGNORED =
      Set.of("module", "registered_name", "shared_object_id");

  private final String kind;
  private final Class<T> type;
  private final Map<String, Function<Parameters, ? extends T>> readers = new HashMap<>();

  /**
   * @param kind Keras' word for it, as in {@code Unknown initializer: bogus}
   */
  Catalog(String kind, Class<T> type) {
    this.kind = kind;
    this.type = type;
  }

  Catalog<T> add(Function<Parameters, ? extends T> reader, String... names) {
    for (String name : names) {
      readers.put(name, reader);
    }
    return this;
  }

  /** Keras' {@code get}: null, a name, a configuration, or the object itself. */
  T get(Object identifier) {
    if (identifier == null) {
      return null;
    }
    if (type.isInstance(identifier)) {
      return type.cast(identifier);
    }
    if (identifier instanceof String name) {
      return make(name, Map.of());
    }
    if (identifier instanceof Map<?, ?> map) {
      return fromConfig(map);
    }
    throw new IllegalArgumentException(
        "Could not interpret %s identifier: %s of %s"
            .formatted(kind, Shown.plain(identifier), identifier.getClass()));
  }

  /** What {@link #get} makes an equal object of; null for null. */
  Map<String, Object> serialize(T object) {
    if (object == null) {
      return null;
    }
    if (object instanceof KerasObject known) {
      return KerasObject.entries("class_name", known.className(), "config", known.config());
    }
    throw new IllegalArgumentException(
        "%s cannot be serialized: it is not one of Keras' %ss"
            .formatted(object.getClass().getName(), kind));
  }

  private T fromConfig(Map<?, ?> map) {
    for (Object key : map.keySet()) {
      if (!"class_name".equals(key) && !"config".equals(key) && !IGNORED.contains(key)) {
        throw new IllegalArgumentException(
            "%s: unknown key %s, known are class_name and config"
                .formatted(kind, Shown.quoted(key)));
      }
    }
    if (!(map.get("class_name") instanceof String name)) {
      throw new IllegalArgumentException(
          "%s: \"class_name\" must be a string, got %s"
              .formatted(kind, Shown.quoted(map.get("class_name"))));
    }
    if (!(map.get("config") instanceof Map<?, ?> config)) {
      throw new IllegalArgumentException(
          "%s %s: \"config\" must be an object, got %s"
              .formatted(kind, Shown.plain(name), Shown.quoted(map.get("config"))));
    }
    return make(name, config);
  }

  private T make(String name, Map<?, ?> config) {
    Function<Parameters, ? extends T> reader = readers.get(name);
    if (reader == null) {
      throw new IllegalArgumentException("Unknown " + kind + ": " + Shown.plain(name));
    }
    Parameters parameters = new Parameters(name, config);
    T object = reader.apply(parameters);
    parameters.requireNoneLeft();
    return object;
  }
}
