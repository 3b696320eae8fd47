package io.github.syncbn4j.state;

import io.github.syncbn4j.nn.ConfigJson;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What a Keras model's configuration says of its batch normalizations, by the layers' names. A name
 * that different ones share says nothing.
 */
record KerasLayers(Map<String, Layer> layers) {
  static final KerasLayers NONE = new KerasLayers(Map.of());

  private static final Set<String> CLASSES =
      Set.of("BatchNormalization", "SyncBatchNormalization", "BatchNormalizationV1");

  /**
   * One batch normalization.
   *
   * @param options momentum and epsilon as texts
   */
  record Layer(boolean scale, boolean center, boolean renorm, Map<String, String> options) {}

  /** A text that is not understood says nothing: the weights do without. */
  static KerasLayers parse(String json) {
    Map<String, Layer> layers = new HashMap<>();
    Set<String> shared = new HashSet<>();
    try {
      collect(ConfigJson.read(json), layers, shared);
    } catch (IllegalArgumentException e) {
      return NONE;
    }
    layers.keySet().removeAll(shared);
    return new KerasLayers(layers);
  }

  private static void collect(Object node, Map<String, Layer> layers, Set<String> shared) {
    if (node instanceof List<?> list) {
      list.forEach(element -> collect(element, layers, shared));
    } else if (node instanceof Map<?, ?> map) {
      if (map.get("class_name") instanceof String type
          && CLASSES.contains(type)
          && map.get("config") instanceof Map<?, ?> config
          && config.get("name") instanceof String name) {
        Layer layer = layer(config);
        Layer former = layers.putIfAbsent(name, layer);
        if (former != null && !former.equals(layer)) {
          shared.add(name);
        }
      }
      map.values().forEach(value -> collect(value, layers, shared));
    }
  }

  private static Layer layer(Map<?, ?> config) {
    Map<String, String> options = new HashMap<>();
    for (String option : List.of(Naming.MOMENTUM, Naming.EPSILON)) {
      if (config.get(option) instanceof Number number) {
        options.put(option, number.toString());
      }
    }
    return new Layer(
        !Boolean.FALSE.equals(config.get("scale")),
        !Boolean.FALSE.equals(config.get("center")),
        Boolean.TRUE.equals(config.get("renorm")),
        options);
  }
}
