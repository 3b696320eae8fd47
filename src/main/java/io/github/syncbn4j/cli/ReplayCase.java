package io.github.syncbn4j.cli;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;

/**
 * The {@code case} of a recording: what layer it is of, and its steps. Only what this version of
 * the library can do gets this far; everything else is refused by its key.
 *
 * @param name of the case; empty if the recording has none
 * @param axis the layer's axis as recorded; -1 is the last
 * @param training of each step
 * @param tolerance empty if the recording has none
 * @param stateTolerance for the moving statistics
 */
record ReplayCase(
    String name,
    int axis,
    double momentum,
    double epsilon,
    boolean center,
    boolean scale,
    int replicas,
    List<Boolean> training,
    Optional<Tolerance> tolerance,
    Optional<Tolerance> stateTolerance) {

  private static final int MAX_REPLICAS = 1024;
  private static final int MAX_DEPTH = 32;

  private static final Set<String> CASE_KEYS =
      Set.of("name", "source", "note", "config", "dtype", "replicas", "steps", "tolerance");
  private static final Set<String> CONFIG_KEYS =
      Set.of("axis", "momentum", "epsilon", "center", "scale", "trainable");

  private static final JsonMapper JSON =
      JsonMapper.builder(
              JsonFactory.builder()
                  .streamReadConstraints(
                      StreamReadConstraints.builder().maxNestingDepth(MAX_DEPTH).build())
                  .build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .build();

  /**
   * Reads the JSON text of a case.
   *
   * @throws RefusedException with every key that is unknown or not supported, or with the first
   *     value that makes no sense
   */
  static ReplayCase parse(String json) throws RefusedException {
    JsonNode root;
    try {
      root = JSON.readTree(json);
    } catch (JsonProcessingException e) {
      throw new RefusedException("case is not valid JSON: " + e.getOriginalMessage(), e);
    }
    requireObject(root, "case");
    JsonNode config = root.has("config") ? root.get("config") : JSON.createObjectNode();
    requireObject(config, "config");
    refuseUnsupported(root, config);
    Optional<Tolerance> tolerance = Optional.empty();
    Optional<Tolerance> state = Optional.empty();
    if (root.has("tolerance")) {
      JsonNode node = root.get("tolerance");
      tolerance = Optional.of(tolerance(node, "tolerance", Set.of("rtol", "atol", "state")));
      state =
          node.has("state")
              ? Optional.of(tolerance(node.get("state"), "tolerance.state", Set.of("rtol", "atol")))
              : tolerance;
    }
    return new ReplayCase(
        root.path("name").asText(""),
        axis(config),
        number(config, "config.", "momentum", 0.99),
        number(config, "config.", "epsilon", 1e-3),
        flag(config, "center"),
        flag(config, "scale"),
        replicas(root),
        steps(root),
        tolerance,
        state);
  }

  private static void refuseUnsupported(JsonNode root, JsonNode config) throws RefusedException {
    List<String> reasons = new ArrayList<>();
    unknownKeys(root, CASE_KEYS, "case.", reasons);
    unknownKeys(config, CONFIG_KEYS, "config.", reasons);
    if (!"float32".equals(root.path("dtype").textValue())) {
      reasons.add("dtype " + shown(root.path("dtype")) + " is not supported (only float32)");
    }
    if (config.has("trainable")
        && !config.get("trainable").equals(JSON.getNodeFactory().booleanNode(true))) {
      reasons.add(
          "config.trainable " + shown(config.get("trainable")) + " is not supported (only true)");
    }
    if (!reasons.isEmpty()) {
      throw new RefusedException(String.join("; ", reasons));
    }
  }

  private static void unknownKeys(
      JsonNode node, Set<String> known, String where, List<String> reasons) {
    for (Map.Entry<String, JsonNode> field : node.properties()) {
      if (!known.contains(field.getKey())) {
        reasons.add(where + field.getKey() + " " + shown(field.getValue()) + " is not supported");
      }
    }
  }

  private static int axis(JsonNode config) throws RefusedException {
    JsonNode axis = config.path("axis");
    if (axis.isMissingNode()) {
      return -1;
    }
    if (axis.isArray() && axis.size() == 1) {
      axis = axis.get(0);
    }
    if (!axis.isInt()) {
      throw new RefusedException(
          "config.axis " + shown(axis) + " is not supported (only the last)");
    }
    return axis.intValue();
  }

  private static int replicas(JsonNode root) throws RefusedException {
    JsonNode replicas = required(root, "replicas", JsonNode::isInt, "an integer");
    if (replicas.intValue() < 1 || replicas.intValue() > MAX_REPLICAS) {
      throw new RefusedException(
          "replicas is " + shown(replicas) + ", allowed is 1 to " + MAX_REPLICAS);
    }
    return replicas.intValue();
  }

  private static List<Boolean> steps(JsonNode root) throws RefusedException {
    JsonNode steps = required(root, "steps", JsonNode::isArray, "an array");
    if (steps.isEmpty()) {
      throw new RefusedException("steps is empty");
    }
    List<Boolean> training = new ArrayList<>();
    for (JsonNode step : steps) {
      String where = "steps[" + training.size() + "]";
      requireObject(step, where);
      List<String> reasons = new ArrayList<>();
      unknownKeys(step, Set.of("training"), where + ".", reasons);
      if (!reasons.isEmpty()) {
        throw new RefusedException(String.join("; ", reasons));
      }
      if (!step.path("training").isBoolean()) {
        throw new RefusedException(
            where + ".training must be true or false, not " + shown(step.path("training")));
      }
      training.add(step.get("training").booleanValue());
    }
    return List.copyOf(training);
  }

  private static Tolerance tolerance(JsonNode node, String where, Set<String> keys)
      throws RefusedException {
    requireObject(node, where);
    List<String> reasons = new ArrayList<>();
    unknownKeys(node, keys, where + ".", reasons);
    if (!reasons.isEmpty()) {
      throw new RefusedException(String.join("; ", reasons));
    }
    double rtol = number(node, where + ".", "rtol", Double.NaN);
    double atol = number(node, where + ".", "atol", Double.NaN);
    if (!(rtol >= 0) || !(atol >= 0)) {
      throw new RefusedException(where + " needs rtol and atol of at least 0, not " + shown(node));
    }
    return new Tolerance(rtol, atol);
  }

  private static double number(JsonNode node, String where, String key, double fallback)
      throws RefusedException {
    if (!node.has(key)) {
      return fallback;
    }
    JsonNode value = node.get(key);
    if (!value.isNumber() || !Double.isFinite(value.doubleValue())) {
      throw new RefusedException(where + key + " must be a finite number, not " + shown(value));
    }
    return value.doubleValue();
  }

  private static boolean flag(JsonNode config, String key) throws RefusedException {
    JsonNode value = config.path(key);
    if (value.isMissingNode()) {
      return true;
    }
    if (!value.isBoolean()) {
      throw new RefusedException("config." + key + " must be true or false, not " + shown(value));
    }
    return value.booleanValue();
  }

  private static JsonNode required(JsonNode root, String key, Predicate<JsonNode> fits, String what)
      throws RefusedException {
    JsonNode value = root.path(key);
    if (!fits.test(value)) {
      throw new RefusedException(key + " must be " + what + ", not " + shown(value));
    }
    return value;
  }

  private static void requireObject(JsonNode node, String where) throws RefusedException {
    if (!node.isObject()) {
      throw new RefusedException(where + " must be an object, not " + shown(node));
    }
  }

  private static String shown(JsonNode node) {
    return node.isMissingNode() ? "(missing)" : Lines.shortened(node.toString());
  }
}
