package io.github.syncbn4j.nn;

import java.util.LinkedHashMap;
import java.util.Map;

/** An initializer, regularizer or constraint that Keras has too. */
interface KerasObject {
  /** Keras' name of the class, as in {@code RandomNormal}. */
  String className();

  /** What Keras' {@code get_config} gives: names and order are those of TF 2.4. */
  Map<String, Object> config();

  /** A map of these names and values in turn, in this order; a value may be null. */
  static Map<String, Object> entries(Object... namesAndValues) {
    Map<String, Object> entries = new LinkedHashMap<>();
    for (int i = 0; i < namesAndValues.length; i += 2) {
      entries.put((String) namesAndValues[i], namesAndValues[i + 1]);
    }
    return entries;
  }

  /**
   * @throws IllegalArgumentException for NaN and infinities
   */
  static void requireFinite(String name, double value) {
    if (!Double.isFinite(value)) {
      throw new IllegalArgumentException(name + " must be a finite number, got " + value);
    }
  }
}
