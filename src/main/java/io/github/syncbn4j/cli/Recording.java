package io.github.syncbn4j.cli;

import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StoredTensor;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A replay file whose inputs are known to be complete and of the right dtypes and shapes: {@code
 * initial.*}, one {@code x} a step and replica, perhaps with a {@code mask}, and for each step
 * either a {@code dy} for every replica or none. What is left are the outputs that it expects. A
 * tensor that is neither is refused.
 */
final class Recording {
  private static final String FORMAT = "syncbn-replay/1";
  private static final List<String> REPLICA_OUTPUTS = List.of("y", "dx", "gamma_grad", "beta_grad");

  private final ReplayCase recorded;
  private final Map<String, String> metadata;
  private final Map<String, StoredTensor> tensors;
  private final Map<String, StoredTensor> expected = new LinkedHashMap<>();

  private Recording(ReplayCase recorded, Safetensors file) throws RefusedException {
    this.recorded = recorded;
    this.metadata = file.metadata();
    this.tensors = file.tensors();
    Set<String> inputs = checkInputs();
    tensors.forEach(
        (name, tensor) -> {
          if (!inputs.contains(name)) {
            expected.put(name, tensor);
          }
        });
    refuseUnknown();
    if (!expected.isEmpty() && recorded.tolerance().isEmpty()) {
      throw new RefusedException("tolerance is missing, but there are outputs to compare with");
    }
  }

  /**
   * @throws RefusedException for anything in the file that this version cannot replay
   */
  static Recording of(Safetensors file) throws RefusedException {
    String format = file.metadata().get("format");
    if (!FORMAT.equals(format)) {
      throw new RefusedException(
          "__metadata__ format is %s, supported is %s"
              .formatted(format == null ? "missing" : Lines.shortened(format), FORMAT));
    }
    if (!file.metadata().containsKey("case")) {
      throw new RefusedException("__metadata__ case is missing");
    }
    return new Recording(ReplayCase.parse(file.metadata().get("case")), file);
  }

  ReplayCase recorded() {
    return recorded;
  }

  /** {@code format} and {@code case}, as they are in the file. */
  Map<String, String> metadata() {
    return metadata;
  }

  StoredTensor initial(String variable) {
    return tensors.get("initial." + variable);
  }

  StoredTensor x(int step, int replica) {
    return tensors.get(input(step, replica, "x"));
  }

  /** Only where {@link #hasGradients}. */
  StoredTensor dy(int step, int replica) {
    return tensors.get(input(step, replica, "dy"));
  }

  /** Null where every element counts. */
  StoredTensor mask(int step, int replica) {
    return tensors.get(input(step, replica, "mask"));
  }

  boolean hasGradients(int step) {
    return tensors.containsKey(input(step, 0, "dy"));
  }

  /** What the layer must produce, by name; empty for a file of inputs only. */
  Map<String, StoredTensor> expected() {
    return Collections.unmodifiableMap(expected);
  }

  static String input(int step, int replica, String name) {
    return "step." + step + ".replica." + replica + "." + name;
  }

  static String state(int step, String name) {
    return "step." + step + "." + name;
  }

  private Set<String> checkInputs() throws RefusedException {
    Set<String> inputs = new LinkedHashSet<>();
    for (int step = 0; step < recorded.training().size(); step++) {
      for (int replica = 0; replica < recorded.replicas(); replica++) {
        String x = input(step, replica, "x");
        requireType(x, require(x), Dtypes.stored(recorded.dtype()));
        inputs.add(x);
        String mask = input(step, replica, "mask");
        if (tensors.containsKey(mask)) {
          checkMask(mask, tensors.get(x));
          inputs.add(mask);
        }
        String dy = input(step, replica, "dy");
        if (hasGradients(step)) {
          requireType(dy, require(dy), Dtypes.stored(recorded.dtype()));
          requireShape(dy, tensors.get(dy), tensors.get(x).shape());
          inputs.add(dy);
        } else if (tensors.containsKey(dy)) {
          throw new RefusedException(input(step, 0, "dy") + " is missing, but there is " + dy);
        }
      }
    }
    for (String variable : recorded.variables()) {
      String name = "initial." + variable;
      requireType(name, require(name), Dtypes.stored(recorded.dtype().ofParameters()));
      inputs.add(name);
    }
    return inputs;
  }

  private void checkMask(String name, StoredTensor x) throws RefusedException {
    requireType(name, tensors.get(name), "BOOL");
    long[] shape = x.shape();
    requireShape(name, tensors.get(name), Arrays.copyOf(shape, Math.max(0, shape.length - 1)));
  }

  private void refuseUnknown() throws RefusedException {
    for (String name : expected.keySet()) {
      if (!isOutput(name)) {
        throw new RefusedException("tensor " + Lines.shortened(name) + " is not supported");
      }
    }
  }

  /**
   * Whether a layer may produce it, going by its name alone; steps and replicas count as recorded.
   */
  private boolean isOutput(String name) {
    String[] parts = name.split("\\.", -1);
    if (parts.length < 3
        || !parts[0].equals("step")
        || !isIndex(parts[1], recorded.training().size())) {
      return false;
    }
    return switch (parts.length) {
      case 3 -> recorded.state().contains(parts[2]);
      case 5 ->
          parts[2].equals("replica")
              && isIndex(parts[3], recorded.replicas())
              && REPLICA_OUTPUTS.contains(parts[4]);
      default -> false;
    };
  }

  private static boolean isIndex(String text, int count) {
    return text.matches("0|[1-9][0-9]{0,8}") && Integer.parseInt(text) < count;
  }

  private StoredTensor require(String name) throws RefusedException {
    StoredTensor tensor = tensors.get(name);
    if (tensor == null) {
      throw new RefusedException("tensor " + name + " is missing");
    }
    return tensor;
  }

  private static void requireType(String name, StoredTensor tensor, String dtype)
      throws RefusedException {
    if (!tensor.dtype().equals(dtype)) {
      throw new RefusedException("%s is %s, not %s".formatted(name, tensor.dtype(), dtype));
    }
  }

  private static void requireShape(String name, StoredTensor tensor, long[] shape)
      throws RefusedException {
    if (!Arrays.equals(tensor.shape(), shape)) {
      throw new RefusedException(
          "%s has shape %s, not %s"
              .formatted(name, Arrays.toString(tensor.shape()), Arrays.toString(shape)));
    }
  }
}
