package io.github.syncbn4j;

import io.github.syncbn4j.check.Shown;
import io.github.syncbn4j.state.BatchNorms;
import io.github.syncbn4j.state.Conversion;
import io.github.syncbn4j.state.ModelFile;
import io.github.syncbn4j.state.Naming;
import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StateException;
import io.github.syncbn4j.state.StoredTensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.OptionalLong;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The state of a model's layers in one file: every variable, bit for bit, and the number of counted
 * steps, under {@code prefix.gamma} and so on, or under the names of another framework.
 *
 * <p>A file that is written also has momentum and epsilon, as texts in the framework's sense.
 * Loading does not take them over, since options are the builder's, but an epsilon that is not the
 * layer's is a warning in the log: the layer then infers something else. A {@code state_dict} of
 * PyTorch's says nothing of it; there it is 1e-5 by default, in Keras and here 1e-3. Running
 * variances are taken as they are; {@link SyncBatchNormalization.Builder#unbiasedRunningVariance}
 * says of which kind a layer's are, and {@link Conversion} converts between the kinds.
 *
 * <p>Both directions wait for what is enqueued; no step may be under way in another thread. In a
 * job of several processes one saves and all load.
 */
public final class LayerState {
  private static final Logger LOG = LoggerFactory.getLogger(LayerState.class);

  /** Of what epsilons may differ by, as a part of one: some files have them as float32. */
  private static final double EPSILON_TOLERANCE = 1e-6;

  private LayerState() {}

  /**
   * Writes a safetensors file, as a whole or not at all: the one that was there stays until the new
   * one is on the disk.
   *
   * @param layers by their prefix in the file; "" for none
   * @throws IllegalArgumentException if there are no layers
   * @throws IOException with the file's name, also if two tensors would have one name
   */
  public static void save(Path file, Map<String, SyncBatchNormalization> layers, Naming naming)
      throws IOException {
    requireAny(layers);
    Map<String, BatchNorms.Norm> norms = new LinkedHashMap<>();
    layers.forEach(
        (prefix, layer) ->
            norms.put(
                prefix,
                layer.gate.valueDuring(() -> new BatchNorms.Norm(state(layer), options(layer)))));
    BatchNorms own = new BatchNorms(file, Naming.SYNCBN4J, norms, Map.of(), Map.of());
    Conversion named = Conversion.of(own, naming, OptionalLong.empty());
    Safetensors.write(file, named.tensors(), named.metadata());
  }

  /**
   * Gives all replicas of this process the state in a file: safetensors, or one of Keras' files,
   * which need {@code io.jhdf:jhdf}. It may have tensors of layers that normalize nothing, but no
   * other batch normalizations: see {@link #loadSome}. Where another framework's has no count of
   * steps, it is 0. A gamma of ones or a beta of zeros in another framework's file is nothing that
   * a layer without has to have.
   *
   * @param layers by their prefix in the file; "" for none
   * @throws IllegalArgumentException if there are no layers
   * @throws IOException with what is missing, unexpected, or of another dtype or shape; nothing has
   *     changed then
   */
  public static void load(Path file, Map<String, SyncBatchNormalization> layers, Naming naming)
      throws IOException {
    requireAny(layers);
    give(BatchNorms.of(ModelFile.read(file), naming), layers);
  }

  /**
   * As {@link #load}, for some of a model's layers: other batch normalizations in the file do not
   * matter.
   */
  public static void loadSome(Path file, Map<String, SyncBatchNormalization> layers, Naming naming)
      throws IOException {
    requireAny(layers);
    give(BatchNorms.of(ModelFile.read(file), naming).only(layers.keySet()), layers);
  }

  private static void give(BatchNorms found, Map<String, SyncBatchNormalization> layers)
      throws StateException {
    Map<String, Map<String, String>> expected = new LinkedHashMap<>();
    layers.forEach((prefix, layer) -> expected.put(prefix, kinds(layer)));
    found.requireExactly(expected);
    for (BatchNorms.Norm norm : found.norms().values()) {
      long steps = countedSteps(norm);
      if (steps < 0 || steps > LayerVariables.MOST_STEPS) {
        throw new StateException(
            found.file(),
            "%d counted steps, allowed is 0 to %d".formatted(steps, LayerVariables.MOST_STEPS));
      }
    }
    layers.forEach(
        (prefix, layer) -> layer.gate.during(() -> write(layer, found.norms().get(prefix))));
    layers.forEach(
        (prefix, layer) -> {
          String epsilon = found.norms().get(prefix).options().get(Naming.EPSILON);
          if (epsilon != null && !isAbout(epsilon, layer.config.epsilon())) {
            LOG.warn(
                "{}: epsilon of {} was {}, this layer has {}: it infers something else",
                found.file(),
                Shown.quoted(prefix),
                Shown.plain(epsilon),
                layer.config.epsilon());
          }
        });
  }

  private static boolean isAbout(String number, double value) {
    try {
      return Math.abs(Double.parseDouble(number) - value) <= EPSILON_TOLERANCE * value;
    } catch (NumberFormatException e) {
      return false;
    }
  }

  private static void requireAny(Map<String, SyncBatchNormalization> layers) {
    if (layers.isEmpty()) {
      throw new IllegalArgumentException("no layers");
    }
  }

  private static Map<String, DeviceTensor> variables(SyncBatchNormalization layer) {
    return layer.variables(layer.group().replicas().get(0));
  }

  private static Map<String, StoredTensor> state(SyncBatchNormalization layer) {
    Map<String, StoredTensor> state = new LinkedHashMap<>();
    variables(layer)
        .forEach(
            (name, variable) -> {
              ByteBuffer data = ByteBuffer.allocate(Math.toIntExact(variable.bytes()));
              variable.copyToHost(data);
              state.put(name, new StoredTensor(dtype(variable), variable.shape(), data));
            });
    ByteBuffer steps = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    steps.putLong(layer.countedSteps()).flip();
    state.put(Naming.COUNTED_STEPS, new StoredTensor("I64", new long[0], steps));
    return state;
  }

  private static Map<String, String> options(SyncBatchNormalization layer) {
    LayerConfig config = layer.config;
    return Map.of(
        Naming.MOMENTUM, config.cumulative() ? "null" : Double.toString(config.momentum()),
        Naming.EPSILON, Double.toString(config.epsilon()),
        Naming.VARIANCE, config.unbiased() ? "unbiased" : "biased");
  }

  /** Dtype and shape of what {@link #state} has, by its names. */
  private static Map<String, String> kinds(SyncBatchNormalization layer) {
    Map<String, String> kinds = new LinkedHashMap<>();
    variables(layer)
        .forEach(
            (name, variable) ->
                kinds.put(name, StoredTensor.kind(dtype(variable), variable.shape())));
    kinds.put(Naming.COUNTED_STEPS, StoredTensor.kind("I64", new long[0]));
    return kinds;
  }

  /** Of the parameters, which are of one of two types. */
  private static String dtype(DeviceTensor variable) {
    return variable.dtype() == DType.FLOAT64 ? "F64" : "F32";
  }

  private static long countedSteps(BatchNorms.Norm norm) {
    StoredTensor steps = norm.variables().get(Naming.COUNTED_STEPS);
    return steps == null ? 0 : steps.data().getLong();
  }

  private static void write(SyncBatchNormalization layer, BatchNorms.Norm norm) {
    for (Replica replica : layer.group().replicas()) {
      layer
          .variables(replica)
          .forEach((name, variable) -> variable.copyFromHost(norm.variables().get(name).data()));
    }
    layer.setCountedSteps(countedSteps(norm));
  }
}
