package io.github.syncbn4j.state;

import io.github.syncbn4j.check.Shown;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;

/**
 * A file's batch normalizations under another framework's names. Values keep their bits, but for
 * running variances that are converted; every other tensor and text stays as it is.
 *
 * @param tensors by name
 * @param metadata text by name: momentum and epsilon, where the file had them, in the other
 *     framework's sense
 * @param norms the batch normalizations by prefix: of each what the metadata say of momentum and
 *     epsilon, by the other framework's words
 * @param added names of tensors that the other framework wants and the file lacks: a gamma of ones,
 *     a beta of zeros. A count of 0 is added unsaid.
 * @param ofOtherKind prefixes of those whose running variances were not of the kind that the other
 *     framework has, biased or not: converted if a number of elements was given
 */
public record Conversion(
    Map<String, StoredTensor> tensors,
    Map<String, String> metadata,
    Map<String, Map<String, String>> norms,
    List<String> added,
    List<String> ofOtherKind) {

  /**
   * @param elements that a channel has in a training batch over all replicas, 2 or more: running
   *     variances are then converted where one framework's are n / (n - 1) times the other's. Empty
   *     to leave them as they are.
   * @throws StateException if there are no such batch normalizations, two tensors would have one
   *     name, or the variances cannot be converted
   */
  public static Conversion of(BatchNorms found, Naming to, OptionalLong elements)
      throws StateException {
    Naming from = found.naming();
    if (found.norms().isEmpty()) {
      throw new StateException(
          found.file(),
          "no batch normalization under %s's names (%s, %s)"
              .formatted(from, from.word("moving_mean"), from.word("moving_variance")));
    }
    Conversion made =
        new Conversion(
            new LinkedHashMap<>(found.others()),
            new LinkedHashMap<>(found.metadata()),
            new LinkedHashMap<>(),
            new ArrayList<>(),
            new ArrayList<>());
    made.metadata.remove(Safetensors.FORMAT);
    to.format().ifPresent(format -> made.metadata.put(Safetensors.FORMAT, format));
    for (Map.Entry<String, BatchNorms.Norm> entry : found.norms().entrySet()) {
      made.add(found.file(), entry.getKey(), entry.getValue(), from, to, elements);
    }
    return made;
  }

  private void add(
      Path file, String prefix, BatchNorms.Norm norm, Naming from, Naming to, OptionalLong elements)
      throws StateException {
    boolean unbiased = from.unbiased() || "unbiased".equals(norm.options().get(Naming.VARIANCE));
    Map<String, StoredTensor> variables = new LinkedHashMap<>(norm.variables());
    if (unbiased != to.unbiased()) {
      ofOtherKind.add(prefix);
      if (elements.isPresent()) {
        StoredTensor variance = norm.variables().get("moving_variance");
        variables.put("moving_variance", scaled(file, from, prefix, variance, unbiased, elements));
        unbiased = to.unbiased();
      }
    }
    if (to.counts()) {
      ByteBuffer none = ByteBuffer.allocate(Long.BYTES);
      variables.putIfAbsent(Naming.COUNTED_STEPS, new StoredTensor("I64", new long[0], none));
    }
    if (!to.mayLack(!variables.containsKey("gamma") && !variables.containsKey("beta"))) {
      StoredTensor mean = variables.get("moving_mean");
      addUnlessThere(to, prefix, "gamma", mean.ones(), variables);
      addUnlessThere(to, prefix, "beta", mean.zeros(), variables);
    }
    for (Map.Entry<String, StoredTensor> variable : variables.entrySet()) {
      put(file, tensors, to.name(prefix, variable.getKey()), variable.getValue());
    }
    Map<String, String> options = new LinkedHashMap<>();
    norms.put(prefix, options);
    for (String option : List.of(Naming.MOMENTUM, Naming.EPSILON)) {
      String text = norm.options().get(option);
      if (text != null) {
        String converted = option.equals(Naming.MOMENTUM) ? to.momentum(text, from) : text;
        put(file, metadata, to.name(prefix, option), converted);
        options.put(to.word(option), converted);
      }
    }
    if (to == Naming.SYNCBN4J && unbiased) {
      put(file, metadata, to.name(prefix, Naming.VARIANCE), "unbiased");
    }
  }

  private static <T> void put(Path file, Map<String, T> values, String name, T value)
      throws StateException {
    if (values.putIfAbsent(name, value) != null) {
      throw new StateException(
          file, "two would be named %s: rename one first".formatted(Shown.quoted(name)));
    }
  }

  private void addUnlessThere(
      Naming to,
      String prefix,
      String word,
      StoredTensor neutral,
      Map<String, StoredTensor> variables) {
    if (variables.putIfAbsent(word, neutral) == null) {
      added.add(to.name(prefix, word));
    }
  }

  private static StoredTensor scaled(
      Path file,
      Naming from,
      String prefix,
      StoredTensor variance,
      boolean unbiased,
      OptionalLong elements)
      throws StateException {
    double n = elements.getAsLong();
    double factor = unbiased ? (n - 1) / n : n / (n - 1);
    ByteBuffer data = variance.data();
    ByteBuffer scaled = ByteBuffer.allocate(data.remaining()).order(ByteOrder.LITTLE_ENDIAN);
    while (data.hasRemaining()) {
      switch (variance.dtype()) {
        case "F32" -> scaled.putFloat((float) (data.getFloat() * factor));
        case "F64" -> scaled.putDouble(data.getDouble() * factor);
        default ->
            throw new StateException(
                file,
                "%s is %s: variances of F32 and F64 only are converted"
                    .formatted(Shown.quoted(from.name(prefix, "moving_variance")), variance));
      }
    }
    return new StoredTensor(variance.dtype(), variance.shape(), scaled.flip());
  }
}
