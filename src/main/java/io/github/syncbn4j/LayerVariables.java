package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import java.util.stream.Collectors;

/** What a layer holds on each replica: its variables and the count of its steps. */
abstract sealed class LayerVariables permits LayerParameters {
  static final long MOST_STEPS = 1L << 53;

  final ReplicaGroup group;
  final LayerConfig config;

  /** Of the layer among those of its group. */
  final int id;

  final List<LayerReplica> members;
  final CallGate gate = new CallGate("the layer");

  LayerVariables(ReplicaGroup group, LayerConfig config, StateMemory memory) {
    this.group = group;
    this.config = config;
    Map<String, double[]> initial = config.initialValues();
    this.id = group.nextLayerId();
    List<LayerReplica> built = new ArrayList<>();
    this.members = Collections.unmodifiableList(built);
    try {
      for (Replica replica : group.replicas()) {
        built.add(new LayerReplica(replica, id, config, initial, memory));
      }
    } catch (RuntimeException | Error e) {
      built.forEach(member -> Cleanup.after(e, member::close));
      throw e;
    }
  }

  /** Gives the variables in all processes the values that rank 0 has drawn. */
  final void equalize() {
    if (members.size() < group.size()) {
      for (LayerReplica member : members) {
        for (DeviceTensor variable : member.variables().values()) {
          member.replica().broadcast(variable, 0);
        }
      }
    }
  }

  /**
   * A replica's variables by Keras' names and in the order of Keras' {@code weights}: {@code gamma,
   * beta, moving_mean, moving_variance} and, with renorm, {@code moving_stddev, renorm_mean,
   * renorm_stddev}. The layer's own memory, of the parameters' dtype; {@code [channels]} for one
   * axis, else the rank of the input with 1 in every other dimension.
   */
  public Map<String, DeviceTensor> variables(Replica replica) {
    Map<String, DeviceTensor> views = new LinkedHashMap<>();
    member(replica).variables().forEach((name, variable) -> views.put(name, variable.view()));
    return views;
  }

  /**
   * A replica's scale, as in {@link #variables}. It starts with the initializer's values, by
   * default ones.
   *
   * @throws IllegalStateException if the layer has none ({@code scale(false)})
   */
  public DeviceTensor gamma(Replica replica) {
    return require(member(replica).variables(), "gamma");
  }

  /**
   * A replica's offset, as in {@link #variables}. It starts with the initializer's values, by
   * default zeros.
   *
   * @throws IllegalStateException if the layer has none ({@code center(false)})
   */
  public DeviceTensor beta(Replica replica) {
    return require(member(replica).variables(), "beta");
  }

  /** A replica's moving mean, as in {@link #variables}. It starts with its initializer's values. */
  public DeviceTensor movingMean(Replica replica) {
    return require(member(replica).variables(), "moving_mean");
  }

  /**
   * A replica's moving variance, as in {@link #variables}: biased, unless built otherwise. It
   * starts with its initializer's values.
   */
  public DeviceTensor movingVariance(Replica replica) {
    return require(member(replica).variables(), "moving_variance");
  }

  /**
   * Values of the variables in the order of Keras' {@code get_weights}, row-major: the mean over
   * the replicas. These are equal unless somebody wrote to one alone. Waits for what is enqueued.
   */
  public List<double[]> getWeights() {
    return gate.valueDuring(this::meanWeights);
  }

  private List<double[]> meanWeights() {
    List<double[]> weights = new ArrayList<>();
    for (String name : members.get(0).variables().keySet()) {
      double[] mean = members.get(0).variables().get(name).copyToHostAsDoubles();
      // Differences from the first, so that equal values give that very value.
      double[] first = mean.clone();
      for (LayerReplica member : members) {
        double[] values = member.variables().get(name).copyToHostAsDoubles();
        for (int c = 0; c < mean.length; c++) {
          mean[c] += (values[c] - first[c]) / members.size();
        }
      }
      weights.add(mean);
    }
    return weights;
  }

  /**
   * Writes the same values to all replicas.
   *
   * @param weights as of {@link #getWeights}
   * @throws IllegalArgumentException if there are more or fewer, or one has another length
   */
  public void setWeights(List<double[]> weights) {
    List<String> names = List.copyOf(members.get(0).variables().keySet());
    if (weights.size() != names.size()) {
      throw new IllegalArgumentException(
          "%d weights for %d variables: %s".formatted(weights.size(), names.size(), names));
    }
    for (int i = 0; i < names.size(); i++) {
      if (weights.get(i).length != config.channels()) {
        throw new IllegalArgumentException(
            "%s has %d values, the layer has %d channels"
                .formatted(names.get(i), weights.get(i).length, config.channels()));
      }
    }
    gate.during(
        () -> {
          for (LayerReplica member : members) {
            for (int i = 0; i < names.size(); i++) {
              member.variables().get(names.get(i)).copyFromHost(weights.get(i));
            }
          }
        });
  }

  /**
   * Training steps that changed the state, PyTorch's {@code num_batches_tracked}. Waits for what is
   * enqueued.
   */
  public long countedSteps() {
    return gate.valueDuring(members.get(0)::countedSteps);
  }

  /**
   * Which of these replicas, whose devices are idle, have taken steps that others have not: ranks
   * by the number of steps. For a group that has failed.
   *
   * @return null if all have taken the same
   */
  final String differences(List<Replica> among) {
    Map<Long, List<Integer>> ranks =
        gate.valueDuring(
            () ->
                members.stream()
                    .filter(member -> among.contains(member.replica()))
                    .collect(
                        Collectors.groupingBy(
                            LayerReplica::countedStepsLeft,
                            TreeMap::new,
                            Collectors.mapping(
                                member -> member.replica().rank(), Collectors.toList()))));
    return ranks.size() < 2
        ? null
        : "layer %d has taken %s"
            .formatted(
                id,
                ranks.entrySet().stream()
                    .map(e -> "%d steps on rank(s) %s".formatted(e.getKey(), e.getValue()))
                    .collect(Collectors.joining(", ")));
  }

  /**
   * Sets the steps that a cumulative average takes to have seen, on all replicas.
   *
   * @throws IllegalArgumentException unless 0 to 2^53
   */
  public void setCountedSteps(long steps) {
    if (steps < 0 || steps > MOST_STEPS) {
      throw new IllegalArgumentException("steps must be 0 to " + MOST_STEPS + ", not " + steps);
    }
    gate.during(() -> members.forEach(member -> member.setCountedSteps(steps)));
  }

  /** The replica's parameters and moving statistics, folded. Waits for what is enqueued. */
  public SyncBatchNormalization.Folded fold(Replica replica) {
    LayerReplica member = member(replica);
    return gate.valueDuring(() -> fold(member.variables()));
  }

  private SyncBatchNormalization.Folded fold(Map<String, DeviceTensor> variables) {
    double[] mean = variables.get("moving_mean").copyToHostAsDoubles();
    double[] variance = variables.get("moving_variance").copyToHostAsDoubles();
    double[] factor = new double[mean.length];
    double[] shift = new double[mean.length];
    Arrays.fill(factor, 1);
    if (config.scale()) {
      factor = variables.get("gamma").copyToHostAsDoubles();
    }
    if (config.center()) {
      shift = variables.get("beta").copyToHostAsDoubles();
    }
    for (int c = 0; c < mean.length; c++) {
      factor[c] /= Math.sqrt(variance[c] + config.epsilon());
      shift[c] -= mean[c] * factor[c];
    }
    return new SyncBatchNormalization.Folded(factor, shift);
  }

  final LayerReplica member(Replica replica) {
    Objects.requireNonNull(replica, "replica");
    if (replica.group() != group) {
      throw new IllegalArgumentException(replica + " belongs to another group than the layer");
    }
    return members.get(replica.rank() - members.get(0).replica().rank());
  }

  static DeviceTensor require(Map<String, DeviceTensor> variables, String name) {
    DeviceTensor variable = variables.get(name);
    if (variable == null) {
      throw new IllegalStateException(
          "the layer has no %s: it was built with %s(false)"
              .formatted(name, name.equals("gamma") ? "scale" : "center"));
    }
    return variable.view();
  }
}
