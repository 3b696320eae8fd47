package io.github.syncbn4j.state;

import io.github.syncbn4j.check.Shown;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;

/**
 * The batch normalizations among a file's tensors, under this library's words, and what is left.
 *
 * <p>What has a running mean or variance is one. One without both (PyTorch's {@code
 * track_running_stats=False}) cannot be told from other layers, and is among the rest.
 *
 * @param file for messages
 * @param naming whose names they have in the file
 * @param norms by prefix, in the file's order
 * @param others tensors that belong to none, by name
 * @param metadata texts that belong to none, by name
 */
public record BatchNorms(
    Path file,
    Naming naming,
    Map<String, Norm> norms,
    Map<String, StoredTensor> others,
    Map<String, String> metadata) {
  /** The most names of a kind that an error lists. */
  private static final int MOST_LISTED = 8;

  private static final List<String> VARIABLES =
      List.of(
          "gamma",
          "beta",
          "moving_mean",
          "moving_variance",
          "moving_stddev",
          "renorm_mean",
          "renorm_stddev",
          Naming.COUNTED_STEPS);

  private static final List<String> OPTIONS =
      List.of(Naming.MOMENTUM, Naming.EPSILON, Naming.VARIANCE);

  /**
   * One batch normalization.
   *
   * @param variables tensors by this library's words, {@code counted_steps} among them
   * @param options what the file says of momentum and epsilon, in the file's sense
   */
  public record Norm(Map<String, StoredTensor> variables, Map<String, String> options) {}

  /**
   * @throws StateException for one that lacks its running mean or variance, has variables of
   *     different shapes or no floating-point numbers, or has one twice
   */
  public static BatchNorms of(ModelFile file, Naming naming) throws StateException {
    Set<String> prefixes = prefixes(file, naming);
    Map<String, Map<String, StoredTensor>> variables = new LinkedHashMap<>();
    Map<String, Map<String, String>> options = new LinkedHashMap<>();
    for (String prefix : prefixes) {
      variables.put(prefix, new LinkedHashMap<>());
      options.put(prefix, new TreeMap<>());
    }
    Map<String, StoredTensor> others =
        sort(file.path(), file.tensors(), naming, VARIABLES, variables);
    Map<String, String> metadata = sort(file.path(), file.metadata(), naming, OPTIONS, options);
    Map<String, Norm> norms = new LinkedHashMap<>();
    for (String prefix : prefixes) {
      check(file.path(), naming, prefix, variables.get(prefix));
      norms.put(prefix, new Norm(variables.get(prefix), options.get(prefix)));
    }
    return new BatchNorms(file.path(), naming, norms, others, metadata);
  }

  /** Of these, those with the given prefixes; the others are dropped. */
  public BatchNorms only(Set<String> prefixes) {
    Map<String, Norm> kept = new LinkedHashMap<>(norms);
    kept.keySet().retainAll(prefixes);
    return new BatchNorms(file, naming, kept, others, metadata);
  }

  /**
   * Makes sure that these are a model's layers, all of them and no other.
   *
   * @param expected by prefix and by this library's word: dtype and shape as of {@link
   *     StoredTensor#toString}. Files of other frameworks need no {@code counted_steps} and may
   *     have a gamma of ones and a beta of zeros that are not expected; all files may have tensors
   *     of layers that normalize nothing.
   * @throws StateException with what is missing, what is unexpected, and what is of another kind
   */
  public void requireExactly(Map<String, Map<String, String>> expected) throws StateException {
    List<String> missing = new ArrayList<>();
    List<String> different = new ArrayList<>();
    List<String> strangers = new ArrayList<>();
    Set<String> unexpected = new LinkedHashSet<>();
    norms.forEach(
        (prefix, norm) -> {
          if (!expected.containsKey(prefix)) {
            strangers.add(Shown.quoted(prefix));
            return;
          }
          norm.variables()
              .forEach(
                  (word, tensor) -> {
                    if (naming == Naming.SYNCBN4J || !isNeutral(word, tensor)) {
                      unexpected.add(naming.name(prefix, word));
                    }
                  });
        });
    expected.forEach(
        (prefix, variables) ->
            variables.forEach(
                (word, kind) -> {
                  String name = naming.name(prefix, word);
                  unexpected.remove(name);
                  StoredTensor tensor =
                      norms.containsKey(prefix) ? norms.get(prefix).variables().get(word) : null;
                  if (tensor == null) {
                    if (naming == Naming.SYNCBN4J || !word.equals(Naming.COUNTED_STEPS)) {
                      missing.add(Shown.quoted(name));
                    }
                  } else if (!tensor.toString().equals(kind)) {
                    different.add("%s is %s, not %s".formatted(Shown.quoted(name), tensor, kind));
                  }
                }));
    for (String other : others.keySet()) {
      if (expected.keySet().stream().anyMatch(prefix -> naming.isOf(prefix, other))) {
        unexpected.add(other);
      }
    }
    List<String> problems = new ArrayList<>();
    list(problems, "missing: ", missing);
    list(problems, "unexpected: ", unexpected.stream().map(Shown::quoted).toList());
    list(problems, "", different);
    list(problems, "batch normalizations that no layer is given for (see loadSome): ", strangers);
    if (!problems.isEmpty()) {
      throw new StateException(file, String.join("; ", problems) + whoseNames());
    }
  }

  /** A hint, where nothing has these names and the file has those of another framework. */
  private String whoseNames() {
    if (!norms.isEmpty()) {
      return "";
    }
    try {
      Naming found = new ModelFile(file, others, metadata, List.of()).naming();
      return found == naming ? "" : "; the file has the names of Naming." + found.name();
    } catch (StateException e) { // of none, or of several
      return "";
    }
  }

  /** What a framework writes that always has a gamma and a beta, for a layer without. */
  private static boolean isNeutral(String word, StoredTensor tensor) {
    return switch (word) {
      case "gamma" -> tensor.data().equals(tensor.ones().data());
      case "beta" -> tensor.data().equals(tensor.zeros().data());
      default -> false;
    };
  }

  private static void list(List<String> problems, String what, List<String> names) {
    if (!names.isEmpty()) {
      String listed = names.stream().limit(MOST_LISTED).collect(Collectors.joining(", "));
      int more = names.size() - MOST_LISTED;
      problems.add(what + listed + (more > 0 ? " and " + more + " more" : ""));
    }
  }

  /** Prefixes of the batch normalizations that there are under these names. */
  static Set<String> prefixes(ModelFile file, Naming naming) {
    Set<String> prefixes = new LinkedHashSet<>();
    for (String name : file.tensors().keySet()) {
      for (String word : List.of("moving_mean", "moving_variance")) {
        String prefix = naming.prefix(name, word);
        if (prefix != null) {
          prefixes.add(prefix);
        }
      }
    }
    return prefixes;
  }

  /** Gives each batch normalization what has one of its names, and returns the rest. */
  private static <T> Map<String, T> sort(
      Path file,
      Map<String, T> values,
      Naming naming,
      List<String> words,
      Map<String, Map<String, T>> byPrefix)
      throws StateException {
    Map<String, T> others = new LinkedHashMap<>();
    for (Map.Entry<String, T> entry : values.entrySet()) {
      Map<String, T> norm = null;
      for (String word : words) {
        norm = byPrefix.get(naming.prefix(entry.getKey(), word));
        if (norm != null) {
          if (norm.putIfAbsent(word, entry.getValue()) != null) {
            throw new StateException(
                file,
                Shown.quoted(entry.getKey()) + " is there twice, once with another separator");
          }
          break;
        }
      }
      if (norm == null) {
        others.put(entry.getKey(), entry.getValue());
      }
    }
    return others;
  }

  private static void check(
      Path file, Naming naming, String prefix, Map<String, StoredTensor> variables)
      throws StateException {
    StoredTensor mean = variables.get("moving_mean");
    StoredTensor variance = variables.get("moving_variance");
    if (mean == null || variance == null) {
      String missing = mean == null ? "moving_mean" : "moving_variance";
      String present = mean == null ? "moving_variance" : "moving_mean";
      throw new StateException(
          file,
          "%s is there without %s"
              .formatted(
                  Shown.quoted(naming.name(prefix, present)),
                  Shown.quoted(naming.name(prefix, missing))));
    }
    for (Map.Entry<String, StoredTensor> entry : variables.entrySet()) {
      StoredTensor tensor = entry.getValue();
      boolean count = entry.getKey().equals(Naming.COUNTED_STEPS);
      if (count
          ? tensor.elements() != 1
          : !tensor.isFloatingPoint() || !Arrays.equals(tensor.shape(), mean.shape())) {
        throw new StateException(
            file,
            "%s is %s, expected %s"
                .formatted(
                    Shown.quoted(naming.name(prefix, entry.getKey())),
                    tensor,
                    count
                        ? "one number"
                        : "floating-point numbers of shape " + Arrays.toString(mean.shape())));
      }
    }
  }
}
