package io.github.syncbn4j;

import io.github.syncbn4j.nn.ConfigJson;
import io.github.syncbn4j.nn.Constraints;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizers;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/**
 * A layer's options as Keras' {@code get_config} writes them: its keys, in TF 2.4's order. Beyond
 * Keras, and only where they are not the default: {@code "activation": "relu"}, {@code
 * "running_variance": "unbiased"}, and {@code "momentum": null} for a cumulative average.
 */
final class KerasConfig {
  private static final int LONGEST_SHOWN = 60;

  private KerasConfig() {}

  static String write(LayerConfig config, boolean trainable) {
    Map<String, Object> map = new LinkedHashMap<>();
    map.put("name", config.name());
    map.put("trainable", trainable);
    if (config.batchInputShape() != null) {
      map.put("batch_input_shape", shape(config.batchInputShape()));
    }
    map.put("dtype", config.dtype().toString());
    int[] axis = config.input().axis();
    // Keras resolves the axis when the layer is built, and then writes a list.
    map.put(
        "axis",
        config.input().knowsRank() ? (Object) Arrays.stream(axis).boxed().toList() : axis[0]);
    map.put("momentum", config.cumulative() ? null : config.momentum());
    map.put("epsilon", config.epsilon());
    map.put("center", config.center());
    map.put("scale", config.scale());
    LayerConfig.VariableInitializers initializers = config.initializers();
    put(map, "beta_initializer", initializers.beta(), Initializers::serialize);
    put(map, "gamma_initializer", initializers.gamma(), Initializers::serialize);
    put(map, "moving_mean_initializer", initializers.movingMean(), Initializers::serialize);
    put(map, "moving_variance_initializer", initializers.movingVariance(), Initializers::serialize);
    put(map, "beta_regularizer", config.regularizers().beta(), Regularizers::serialize);
    put(map, "gamma_regularizer", config.regularizers().gamma(), Regularizers::serialize);
    put(map, "beta_constraint", config.constraints().beta(), Constraints::serialize);
    put(map, "gamma_constraint", config.constraints().gamma(), Constraints::serialize);
    if (config.renorm()) {
      map.put("renorm", true);
      map.put("renorm_clipping", config.clipping().toMap());
      map.put("renorm_momentum", config.renormMomentum());
    }
    if (config.relu()) {
      map.put("activation", "relu");
    }
    if (config.unbiased()) {
      map.put("running_variance", "unbiased");
    }
    return ConfigJson.write(map);
  }

  private static <T> void put(
      Map<String, Object> map, String key, T value, Function<T, Map<String, Object>> serialize) {
    map.put(key, value == null ? null : serialize.apply(value));
  }

  /**
   * Sets a builder's options from a configuration.
   *
   * @throws IllegalArgumentException for a key that is not known, and a value that makes no sense
   */
  static void read(String json, SyncBatchNormalization.Builder builder) {
    ConfigJson.read(json).forEach((key, value) -> set(builder, key, value));
  }

  private static void set(SyncBatchNormalization.Builder builder, String key, Object value) {
    switch (key) {
      case "name" -> {
        if (value != null) {
          builder.name(text(key, value));
        }
      }
      case "trainable" -> builder.trainable(flag(key, value));
      case "dtype" -> builder.dtype(dtype(value));
      case "batch_input_shape" -> builder.batchInputShape(shape(value));
      case "axis" -> builder.axis(axis(value));
      case "momentum" -> {
        if (value == null) {
          builder.cumulativeAverage();
        } else {
          builder.momentum(number(key, value));
        }
      }
      case "epsilon" -> builder.epsilon(number(key, value));
      case "center" -> builder.center(flag(key, value));
      case "scale" -> builder.scale(flag(key, value));
      case "beta_initializer" -> builder.betaInitializer(Initializers.get(value));
      case "gamma_initializer" -> builder.gammaInitializer(Initializers.get(value));
      case "moving_mean_initializer" -> builder.movingMeanInitializer(Initializers.get(value));
      case "moving_variance_initializer" ->
          builder.movingVarianceInitializer(Initializers.get(value));
      case "beta_regularizer" -> builder.betaRegularizer(Regularizers.get(value));
      case "gamma_regularizer" -> builder.gammaRegularizer(Regularizers.get(value));
      case "beta_constraint" -> builder.betaConstraint(Constraints.get(value));
      case "gamma_constraint" -> builder.gammaConstraint(Constraints.get(value));
      case "renorm" -> builder.renorm(flag(key, value));
      case "renorm_clipping" -> builder.renormClipping(clipping(value));
      case "renorm_momentum" -> builder.renormMomentum(number(key, value));
      case "running_variance" ->
          builder.unbiasedRunningVariance(oneOf(key, value, "biased", "unbiased") == 1);
      case "activation" -> builder.relu(value != null && oneOf(key, value, "linear", "relu") == 1);
      // What Keras' layers have besides, at the value that changes nothing here.
      case "dynamic" -> require(key, value, Boolean.FALSE);
      case "autocast" -> require(key, value, null, Boolean.TRUE);
      case "activity_regularizer" -> require(key, value, (Object) null);
      case "synchronized" -> require(key, value, Boolean.TRUE);
      case "fused" -> require(key, value, null, Boolean.FALSE);
      case "virtual_batch_size", "adjustment" -> require(key, value, (Object) null);
      default -> throw new IllegalArgumentException("keyword argument not understood: " + key);
    }
  }

  private static void require(String key, Object value, Object... allowed) {
    if (!Arrays.asList(allowed).contains(value)) {
      throw new IllegalArgumentException(
          key + " " + shown(value) + " is not supported (only " + Arrays.toString(allowed) + ")");
    }
  }

  private static String text(String key, Object value) {
    if (!(value instanceof String text)) {
      throw wrong(key, "a string", value);
    }
    return text;
  }

  private static boolean flag(String key, Object value) {
    if (!(value instanceof Boolean flag)) {
      throw wrong(key, "true or false", value);
    }
    return flag;
  }

  private static double number(String key, Object value) {
    if (!(value instanceof Number number)) {
      throw wrong(key, "a number", value);
    }
    return number.doubleValue();
  }

  private static int oneOf(String key, Object value, String... names) {
    int index = Arrays.asList(names).indexOf(value);
    if (index < 0) {
      throw wrong(key, "one of " + String.join(", ", names), value);
    }
    return index;
  }

  private static int[] axis(Object value) {
    List<?> axes = value instanceof List<?> list ? list : Arrays.asList(value);
    int[] axis = new int[axes.size()];
    for (int i = 0; i < axis.length; i++) {
      if (!(axes.get(i) instanceof Long number) || number.intValue() != number) {
        throw wrong("axis", "an int or a list of ints", value);
      }
      axis[i] = number.intValue();
    }
    return axis;
  }

  /** A null stands for a dimension of any size. */
  private static List<Long> shape(long[] shape) {
    return Arrays.stream(shape).mapToObj(d -> d == InputSpec.UNKNOWN ? null : (Long) d).toList();
  }

  private static long[] shape(Object value) {
    if (!(value instanceof List<?> list)
        || !list.stream().allMatch(d -> d == null || (d instanceof Long size && size >= 0))) {
      throw wrong("batch_input_shape", "a list of sizes and nulls", value);
    }
    return list.stream().mapToLong(d -> d == null ? InputSpec.UNKNOWN : (Long) d).toArray();
  }

  /** A type's name, or a policy: {@code mixed_*} computes in 16 bits with float32 variables. */
  private static DType dtype(Object value) {
    Object name = value;
    if (value instanceof Map<?, ?> policy && policy.get("config") instanceof Map<?, ?> config) {
      name = config.get("name");
    }
    for (DType dtype : DType.values()) {
      boolean mixed = name instanceof String text && text.equals("mixed_" + dtype);
      if (dtype.isFloatingPoint()
          && (dtype.toString().equals(name) || (mixed && dtype.bytes() == Short.BYTES))) {
        return dtype;
      }
    }
    throw wrong("dtype", "float32, float16, bfloat16 or float64", value);
  }

  private static RenormClipping clipping(Object value) {
    if (value == null) {
      return RenormClipping.NONE;
    }
    if (!(value instanceof Map<?, ?> map)) {
      throw wrong("renorm_clipping", "an object", value);
    }
    List<Object> unknown = new ArrayList<>(map.keySet());
    unknown.removeAll(List.of("rmax", "rmin", "dmax"));
    if (!unknown.isEmpty()) {
      throw new IllegalArgumentException(
          "renorm_clipping "
              + shown(value)
              + " has keys other than rmax, rmin and dmax: "
              + shown(unknown));
    }
    return new RenormClipping(limit(map, "rmin"), limit(map, "rmax"), limit(map, "dmax"));
  }

  private static Double limit(Map<?, ?> limits, String name) {
    Object value = limits.get(name);
    return value == null ? null : (Double) number("renorm_clipping." + name, value);
  }

  private static IllegalArgumentException wrong(String key, String wanted, Object value) {
    return new IllegalArgumentException(
        "%s must be %s, not %s".formatted(key, wanted, shown(value)));
  }

  private static String shown(Object value) {
    String text = value instanceof String ? "\"" + value + "\"" : String.valueOf(value);
    return text.length() <= LONGEST_SHOWN ? text : text.substring(0, LONGEST_SHOWN) + "...";
  }
}
