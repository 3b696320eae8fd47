package io.github.syncbn4j.cli;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.github.syncbn4j.DType;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Stream;

/**
 * The {@code case} of a recording: what layer it is of, and its steps. A key that is not known is
 * refused by its name; the layer's own options are the layer's to judge.
 *
 * @param name of the case; empty if the recording has none
 * @param dtype of x, y and their gradients
 * @param config the layer's arguments as JSON, without the adjustment
 * @param scale whether there is a gamma
 * @param center whether there is a beta
 * @param renorm whether there are the statistics of batch renormalization
 * @param trainable whether the parameters have gradients
 * @param adjustment constants, if there are some
 * @param training of each step
 * @param tolerance empty if the recording has none
 * @param stateTolerance for the moving statistics
 */
record ReplayCase(
    String name,
    DType dtype,
    String config,
    boolean scale,
    boolean center,
    boolean renorm,
    boolean trainable,
    Optional<Adjusted> adjustment,
    int replicas,
    List<Boolean> training,
    Optional<Tolerance> tolerance,
    Optional<Tolerance> stateTolerance) {

  /** Factors of an adjustment, which broadcast against x. */
  record Adjusted(Array scale, Array bias) {}

  /** A nested JSON array of numbers, or a number alone, in row-major order. */
  record Array(long[] shape, double[] values) {}

  private static final int MAX_REPLICAS = 1024;
  private static final int MAX_DEPTH = 32;

  private static final Set<String> CASE_KEYS =
      Set.of("name", "source", "note", "config", "dtype", "replicas", "steps", "tolerance");

  private static final List<String> STATE = List.of("moving_mean", "moving_variance");
  private static final List<String> RENORM_STATE =
      List.of("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev");

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
    requireKnownKeys(root, CASE_KEYS, "case.");
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
    Optional<Adjusted> adjustment = adjustment(config);
    ObjectNode options = config.deepCopy();
    options.remove("adjustment");
    return new ReplayCase(
        root.path("name").asText(""),
        dtype(root),
        options.toString(),
        flag(config, "scale", true),
        flag(config, "center", true),
        flag(config, "renorm", false),
        flag(config, "trainable", true),
        adjustment,
        replicas(root),
        steps(root),
        tolerance,
        state);
  }

  /** Names of the layer's variables that a recording has first values of, in Keras' order. */
  List<String> variables() {
    return Stream.concat(
            Stream.of("gamma", "beta").filter(name -> name.equals("gamma") ? scale : center),
            state().stream())
        .toList();
  }

  /** Names of the moving statistics. */
  List<String> state() {
    return renorm ? RENORM_STATE : STATE;
  }

  private static void requireKnownKeys(JsonNode node, Set<String> known, String where)
      throws RefusedException {
    List<String> reasons = new ArrayList<>();
    for (Map.Entry<String, JsonNode> field : node.properties()) {
      if (!known.contains(field.getKey())) {
        reasons.add(where + field.getKey() + " " + shown(field.getValue()) + " is not supported");
      }
    }
    if (!reasons.isEmpty()) {
      throw new RefusedException(String.join("; ", reasons));
    }
  }

  private static DType dtype(JsonNode root) throws RefusedException {
    String name = root.path("dtype").textValue();
    for (DType dtype : DType.values()) {
      if (dtype.isFloatingPoint() && dtype.toString().equals(name)) {
        return dtype;
      }
    }
    throw new RefusedException("dtype " + shown(root.path("dtype")) + " is not supported");
  }

  private static Optional<Adjusted> adjustment(JsonNode config) throws RefusedException {
    JsonNode node = config.path("adjustment");
    if (node.isMissingNode() || node.isNull()) {
      return Optional.empty();
    }
    requireObject(node, "config.adjustment");
    requireKnownKeys(node, Set.of("scale", "bias"), "config.adjustment.");
    return Optional.of(new Adjusted(array(node, "scale"), array(node, "bias")));
  }

  private static Array array(JsonNode adjustment, String key) throws RefusedException {
    List<Long> shape = new ArrayList<>();
    for (JsonNode node = adjustment.path(key); node.isArray(); node = node.path(0)) {
      shape.add((long) node.size());
    }
    List<Double> values = new ArrayList<>();
    if (!collect(adjustment.path(key), shape, 0, values)) {
      throw new RefusedException(
          "config.adjustment.%s must be finite numbers in arrays of equal lengths, not %s"
              .formatted(key, shown(adjustment.path(key))));
    }
    return new Array(
        shape.stream().mapToLong(Long::longValue).toArray(),
        values.stream().mapToDouble(Double::doubleValue).toArray());
  }

  private static boolean collect(JsonNode node, List<Long> shape, int depth, List<Double> values) {
    if (depth == shape.size()) {
      values.add(node.doubleValue());
      return node.isNumber() && Double.isFinite(node.doubleValue());
    }
    if (node.size() != shape.get(depth)) {
      return false;
    }
    for (JsonNode element : node) {
      if (!collect(element, shape, depth + 1, values)) {
        return false;
      }
    }
    return true;
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
      requireKnownKeys(step, Set.of("training"), where + ".");
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
    requireKnownKeys(node, keys, where + ".");
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

  private static boolean flag(JsonNode config, String key, boolean fallback)
      throws RefusedException {
    JsonNode value = config.path(key);
    if (value.isMissingNode()) {
      return fallback;
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
