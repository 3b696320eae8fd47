package io.github.syncbn4j.state;

import io.github.syncbn4j.check.Shown;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Pattern;

/**
 * Finds the batch normalizations in a Keras HDF5 file and names their variables {@code
 * layer/gamma}.
 *
 * <p>Keras 3 numbers a layer's variables: {@code layers/batch_normalization_2/vars/0}. Older files
 * have names: {@code model_weights/first/first/gamma:0}. The layer's name is what the user gave it,
 * where the file has that and no other batch normalization shares it; else it is the path.
 */
final class KerasNames {
  /** Which names everything, in any version of Keras 3. */
  static final String BY_NAME =
      "safetensors.numpy.save_file({v.path: v.numpy() for v in model.variables}, FILE)";

  private static final String VARS = "vars";

  /** A layer's own group, as Keras derives it from the class, and so is its name by default. */
  private static final Pattern CLASS = Pattern.compile("(sync_)?batch_normalization(_v1)?(_\\d+)?");

  private static final List<String> MOVING = List.of("moving_mean", "moving_variance");
  private static final List<String> RENORM =
      List.of("moving_stddev", "renorm_mean", "renorm_stddev");

  private final Path path;
  private final Map<String, String> layerNames;
  private final KerasLayers layers;

  /** By group: the variables' names in the file, by the names that they get. */
  private final Map<String, Map<String, String>> found = new LinkedHashMap<>();

  /**
   * @param layerNames that the file has, by the path of the group
   */
  KerasNames(Path path, Map<String, String> layerNames, KerasLayers layers) {
    this.path = path;
    this.layerNames = layerNames;
    this.layers = layers;
  }

  /**
   * @param tensors by their paths in the file
   */
  ModelFile name(Map<String, StoredTensor> tensors, List<String> leftOut) throws StateException {
    Map<String, List<String>> groups = new LinkedHashMap<>();
    for (String name : tensors.keySet()) {
      groups.computeIfAbsent(parent(name), group -> new ArrayList<>()).add(last(name));
    }
    for (Map.Entry<String, List<String>> group : groups.entrySet()) {
      Map<String, String> variables =
          last(group.getKey()).equals(VARS)
              ? numbered(group.getKey(), group.getValue(), tensors)
              : named(group.getValue());
      if (!variables.isEmpty()) {
        found.put(group.getKey(), variables);
      }
    }
    return rename(tensors, leftOut);
  }

  private static Map<String, String> named(List<String> members) {
    Map<String, String> variables = new LinkedHashMap<>();
    for (String member : members) {
      variables.put(
          member.endsWith(":0") ? member.substring(0, member.length() - 2) : member, member);
    }
    return variables.keySet().containsAll(MOVING) ? variables : Map.of();
  }

  private Map<String, String> numbered(
      String group, List<String> members, Map<String, StoredTensor> tensors) throws StateException {
    KerasLayers.Layer layer = layers.layers().get(layerName(group));
    boolean named = layer != null || isNamedSo(group);
    if (!named && !areAlike(group, members, tensors)) {
      return Map.of();
    }
    List<String> variables =
        layer == null
            ? guess(group, members.size())
            : variables(layer.scale(), layer.center(), layer.renorm());
    Map<String, String> numbers = new LinkedHashMap<>();
    for (int i = 0; i < variables.size(); i++) {
      numbers.put(variables.get(i), Integer.toString(i));
    }
    if (!new HashSet<>(members).equals(new HashSet<>(numbers.values()))) {
      throw new StateException(
          path,
          "%s has the variables %s, expected is one each for %s"
              .formatted(Shown.quoted(group), members, variables));
    }
    return numbers;
  }

  private String layerName(String group) {
    return layerNames.getOrDefault(group, "");
  }

  private boolean isNamedSo(String group) {
    return CLASS.matcher(last(parent(group))).matches()
        || CLASS.matcher(layerName(group)).matches();
  }

  /** As many equal shapes as no other layer of Keras' has, whatever the model calls it. */
  private static boolean areAlike(
      String group, List<String> members, Map<String, StoredTensor> tensors) {
    StoredTensor first = tensors.get(group + "/0");
    return (members.size() == 4 || members.size() == 7)
        && first != null
        && first.shape().length > 0
        && !group.startsWith("optimizer")
        && members.stream()
            .map(member -> tensors.get(group + "/" + member))
            .allMatch(
                tensor -> tensor.isFloatingPoint() && Arrays.equals(tensor.shape(), first.shape()));
  }

  private static List<String> variables(boolean scale, boolean center, boolean renorm) {
    List<String> variables = new ArrayList<>();
    if (scale) {
      variables.add("gamma");
    }
    if (center) {
      variables.add("beta");
    }
    variables.addAll(MOVING);
    if (renorm) {
      variables.addAll(RENORM);
    }
    return variables;
  }

  private List<String> guess(String group, int count) throws StateException {
    return switch (count) {
      case 2 -> variables(false, false, false);
      case 4 -> variables(true, true, false);
      case 5 -> variables(false, false, true);
      case 7 -> variables(true, true, true);
      default ->
          throw new StateException(
              path,
              "%s has %d variables, one of them gamma or beta, and the file does not say which: give the model's .keras file, or what %s writes"
                  .formatted(Shown.quoted(group), count, BY_NAME));
    };
  }

  // ---------------------------------------------------------------------------------- renaming

  private ModelFile rename(Map<String, StoredTensor> tensors, List<String> leftOut)
      throws StateException {
    Map<String, String> prefixes = prefixes();
    Map<String, StoredTensor> renamed = new LinkedHashMap<>();
    Map<String, String> metadata = new TreeMap<>();
    Set<String> taken = new HashSet<>();
    for (Map.Entry<String, Map<String, String>> group : found.entrySet()) {
      String prefix = prefixes.get(group.getKey());
      for (Map.Entry<String, String> variable : group.getValue().entrySet()) {
        String name = group.getKey() + "/" + variable.getValue();
        taken.add(name);
        put(renamed, Naming.KERAS.name(prefix, variable.getKey()), tensors.get(name));
      }
      KerasLayers.Layer layer =
          layers.layers().get(layerNames.getOrDefault(group.getKey(), prefix));
      if (layer != null) {
        layer
            .options()
            .forEach((option, text) -> metadata.put(Naming.KERAS.name(prefix, option), text));
      }
    }
    for (Map.Entry<String, StoredTensor> tensor : tensors.entrySet()) {
      if (!taken.contains(tensor.getKey())) {
        put(renamed, tensor.getKey(), tensor.getValue());
      }
    }
    return new ModelFile(path, renamed, metadata, List.copyOf(leftOut));
  }

  private void put(Map<String, StoredTensor> renamed, String name, StoredTensor tensor)
      throws StateException {
    if (renamed.putIfAbsent(name, tensor) != null) {
      throw new StateException(path, "two tensors would be named " + Shown.quoted(name));
    }
  }

  /** By group: the layer's name if it is of this one alone, else the group's path. */
  private Map<String, String> prefixes() {
    Map<String, Integer> uses = new LinkedHashMap<>();
    found.keySet().forEach(group -> uses.merge(shortName(group), 1, Integer::sum));
    Map<String, String> prefixes = new LinkedHashMap<>();
    for (String group : found.keySet()) {
      String name = shortName(group);
      prefixes.put(group, uses.get(name) == 1 ? name : layerPath(group));
    }
    return prefixes;
  }

  private String shortName(String group) {
    if (!last(group).equals(VARS)) {
      return last(group);
    }
    String name = layerName(group);
    return name.isEmpty() ? layerPath(group) : name;
  }

  private static String layerPath(String group) {
    return last(group).equals(VARS) ? parent(group) : group;
  }

  private static String parent(String path) {
    return path.substring(0, Math.max(0, path.lastIndexOf('/')));
  }

  private static String last(String path) {
    return path.substring(path.lastIndexOf('/') + 1);
  }
}
