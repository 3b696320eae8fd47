package io.github.syncbn4j.spec;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * One of the specification's vectors: training steps of Keras' layer and all that they must give.
 * The file has 12 digits of each number. Its inputs are elevenths and few others, its upstream
 * gradients cosines: these are taken in full.
 */
final class KerasVector {
  private static final String FILE = "/keras_vectors.json";

  private final JsonNode json;
  final Options options;

  private KerasVector(JsonNode json) {
    this.json = json;
    this.options = options(json.get("args"));
    this.options.adjusted = !json.get("adjustment").isNull();
  }

  static List<KerasVector> all() {
    try (InputStream in = KerasVector.class.getResourceAsStream(FILE)) {
      return stream(new ObjectMapper().readTree(in)).map(KerasVector::new).toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static Stream<JsonNode> stream(JsonNode array) {
    return StreamSupport.stream(array.spliterator(), false);
  }

  private static Options options(JsonNode args) {
    Options options = new Options();
    args.fieldNames()
        .forEachRemaining(
            name -> {
              JsonNode value = args.get(name);
              switch (name) {
                case "momentum" -> options.momentum = value.doubleValue();
                case "epsilon" -> options.epsilon = value.doubleValue();
                case "center" -> options.center = value.booleanValue();
                case "scale" -> options.scale = value.booleanValue();
                case "renorm" -> options.renorm = value.booleanValue();
                case "rmom" -> options.renormMomentum = value.doubleValue();
                case "axis" ->
                    options.axis =
                        value.isArray()
                            ? stream(value).mapToInt(JsonNode::intValue).toArray()
                            : new int[] {value.intValue()};
                case "clip" -> {
                  options.rmin = limit(value, "rmin");
                  options.rmax = limit(value, "rmax");
                  options.dmax = limit(value, "dmax");
                }
                case "gamma", "beta", "mm", "mv" -> {} // initial values
                default -> throw new AssertionError("an argument that is not known: " + name);
              }
            });
    return options;
  }

  private static Double limit(JsonNode clip, String name) {
    return clip.has(name) ? clip.get(name).doubleValue() : null;
  }

  String id() {
    return json.get("id").textValue();
  }

  int replicas() {
    return json.get("replicas").intValue();
  }

  int channels() {
    return json.get("batch_mean").size();
  }

  /** Of the inputs, with any number of examples. */
  long[] inputShape() {
    long[] shape = values(json.at("/steps/0/0")).shape();
    if (Arrays.stream(options.axis).noneMatch(axis -> axis == 0)) {
      shape[0] = -1;
    }
    return shape;
  }

  /** First values of all variables, each constant over the channels. */
  Map<String, double[]> initial() {
    double mean = argument("mm", 0);
    double variance = argument("mv", 1);
    Map<String, Double> constants = new LinkedHashMap<>();
    if (options.scale) {
      constants.put("gamma", argument("gamma", 1));
    }
    if (options.center) {
      constants.put("beta", argument("beta", 0));
    }
    constants.put("moving_mean", mean);
    constants.put("moving_variance", variance);
    if (options.renorm) {
      constants.put("moving_stddev", Math.sqrt(variance));
      constants.put("renorm_mean", mean);
      constants.put("renorm_stddev", Math.sqrt(variance));
    }
    Map<String, double[]> initial = new LinkedHashMap<>();
    constants.forEach((name, value) -> initial.put(name, Values.of(c -> value, channels()).data()));
    return initial;
  }

  private double argument(String name, double absent) {
    return json.get("args").path(name).asDouble(absent);
  }

  /** The training steps; the last has upstream gradients. */
  List<Step> steps() {
    List<Step> steps = new ArrayList<>();
    for (JsonNode inputs : json.get("steps")) {
      Step step = new Step(true, stream(inputs).map(KerasVector::values).toList());
      if (options.adjusted) {
        step.adjustScale = sameOnAllReplicas(numbers(json.at("/adjustment/0")));
        step.adjustBias = sameOnAllReplicas(numbers(json.at("/adjustment/1")));
      }
      steps.add(step);
    }
    Step last = steps.get(steps.size() - 1);
    last.dy = last.x.stream().map(x -> Values.w(x.shape())).toList();
    return steps;
  }

  private List<Values> sameOnAllReplicas(double[] values, long... shape) {
    Values same = new Values(values, shape.length == 0 ? new long[] {values.length} : shape);
    return Stream.generate(() -> same).limit(replicas()).toList();
  }

  /** The inference step that follows, on every replica the same; null if there is none. */
  Step inference() {
    if (json.get("infer_x").isNull()) {
      return null;
    }
    double[] x = Arrays.stream(numbers(json.get("infer_x"))).map(KerasVector::exact).toArray();
    return new Step(false, sameOnAllReplicas(x, x.length / channels(), channels()));
  }

  private static Values values(JsonNode tensor) {
    long[] shape = stream(tensor.get("shape")).mapToLong(JsonNode::longValue).toArray();
    double[] data = numbers(tensor.get("data"));
    return new Values(Arrays.stream(data).map(KerasVector::exact).toArray(), shape);
  }

  /** The eleventh that the file has 12 digits of. */
  private static double exact(double value) {
    double elevenths = Math.rint(value * 11);
    return Math.abs(value * 11 - elevenths) < 1e-9 ? elevenths / 11 : value;
  }

  private static double[] numbers(JsonNode array) {
    return stream(array).mapToDouble(JsonNode::doubleValue).toArray();
  }

  // ------------------------------------------------------------------------------------------------- expectations

  /**
   * What the last training step must give, by the names of {@link TestedLayer}. An empty replica's
   * state is, in this library, that of the others.
   */
  Map<String, double[]> expected() {
    Map<String, double[]> expected = new LinkedHashMap<>();
    for (int rank = 0; rank < replicas(); rank++) {
      String ofRank = " of rank " + rank;
      expected.put("y" + ofRank, numbers(json.at("/y/" + rank)));
      expected.put("dx" + ofRank, numbers(json.at("/grad_x/" + rank)));
      if (options.scale) {
        expected.put("gamma gradient" + ofRank, numbers(json.at("/grad_gamma_local/" + rank)));
      }
      if (options.center) {
        expected.put("beta gradient" + ofRank, numbers(json.at("/grad_beta_local/" + rank)));
      }
      boolean empty = numbers(json.at("/y/" + rank)).length == 0;
      JsonNode state = json.at("/state/" + (empty ? 0 : rank));
      state
          .fieldNames()
          .forEachRemaining(name -> expected.put(name + ofRank, numbers(state.get(name))));
    }
    return expected;
  }

  double[] batchMean() {
    return numbers(json.get("batch_mean"));
  }

  double[] batchVariance() {
    return numbers(json.get("batch_var"));
  }

  double[] inferred() {
    return numbers(json.get("infer_y"));
  }

  /** What the file's 12 digits leave open. */
  static double cutOff(double value) {
    return 5e-12 * Math.abs(value);
  }

  @Override
  public String toString() {
    return id() + " " + json.get("args") + (options.adjusted ? " with adjustment" : "");
  }
}
