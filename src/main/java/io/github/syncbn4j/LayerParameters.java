package io.github.syncbn4j;

import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * What a layer has for the optimizer of gamma and beta: their gradients, penalties and constraints,
 * and whether they are trained at all.
 */
abstract sealed class LayerParameters extends LayerVariables permits SyncBatchNormalization {
  private volatile boolean trainable;

  LayerParameters(ReplicaGroup group, LayerConfig config, boolean trainable, StateMemory memory) {
    super(group, config, memory);
    this.trainable = trainable;
  }

  /** Whether training calls train it. */
  public boolean isTrainable() {
    return trainable;
  }

  /**
   * Freezes the layer, or has it train again: a frozen one takes every call for inference, and its
   * backward gives the input gradient alone. Read at each forward; all replicas need the same.
   */
  public void setTrainable(boolean trainable) {
    this.trainable = trainable;
  }

  /**
   * The gradient of the loss by {@code gamma} from this replica's examples alone, of the dtype and
   * shape of gamma, as the last backward of a trainable pass wrote it. Not reduced over the
   * replicas; see {@link #allReduceGradients()}.
   *
   * @throws IllegalStateException if the layer has no gamma
   */
  public DeviceTensor gammaGradient(Replica replica) {
    return require(member(replica).gradients(), "gamma");
  }

  /**
   * The gradient of the loss by {@code beta}, as {@link #gammaGradient}.
   *
   * @throws IllegalStateException if the layer has no beta
   */
  public DeviceTensor betaGradient(Replica replica) {
    return require(member(replica).gradients(), "beta");
  }

  /**
   * Sums the gradients by gamma and beta over the replicas, in place: afterwards {@link
   * #gammaGradient} and {@link #betaGradient} are those of the whole batch, on every replica. A
   * frozen layer has none: nothing happens.
   */
  public void allReduceGradients() {
    forEachTrainedParameter(
        name ->
            group.allReduce(members.stream().map(member -> member.gradients().get(name)).toList()));
  }

  /** As {@link #allReduceGradients()}: every replica's thread has to call it. */
  public void allReduceGradients(Replica replica) {
    LayerReplica member = member(replica);
    forEachTrainedParameter(name -> replica.allReduce(member.gradients().get(name)));
  }

  private void forEachTrainedParameter(Consumer<String> action) {
    gate.during(() -> (trainable ? config.parameters() : List.<String>of()).forEach(action));
  }

  /**
   * The penalties of the regularizers, gamma's and then beta's, of those that there are; also of a
   * frozen layer. Add them to the loss once, not once a replica. Waits for what is enqueued.
   */
  public List<Double> losses() {
    return gate.valueDuring(() -> losses(members.get(0)));
  }

  private List<Double> losses(LayerReplica member) {
    return config.regularized().entrySet().stream()
        .map(
            entry ->
                entry
                    .getValue()
                    .loss(
                        member.variables().get(entry.getKey()).copyToHostAsDoubles(),
                        config.input().parameterShape()))
        .toList();
  }

  /**
   * Adds the gradients of {@link #losses} to those of the parameters: on each replica its share of
   * one over the number of replicas, so that their sum has each once; none of a frozen layer. After
   * backward and before {@link #allReduceGradients()}. Waits for what is enqueued.
   */
  public void addRegularizationGradients() {
    group.replicas().forEach(this::addRegularizationGradients);
  }

  /** As {@link #addRegularizationGradients()}, of one replica. */
  public void addRegularizationGradients(Replica replica) {
    LayerReplica member = member(replica);
    gate.during(() -> addRegularizationGradients(member));
  }

  private void addRegularizationGradients(LayerReplica member) {
    if (!trainable) {
      return;
    }
    config
        .regularized()
        .forEach(
            (name, regularizer) -> {
              double[] penalty =
                  regularizer.gradient(
                      member.variables().get(name).copyToHostAsDoubles(),
                      config.input().parameterShape());
              DeviceTensor gradient = member.gradients().get(name);
              double[] sum = gradient.copyToHostAsDoubles();
              if (penalty.length != sum.length) {
                throw new IllegalArgumentException(
                    "the gradient of %s's regularizer has %d values, %s has %d"
                        .formatted(name, penalty.length, name, sum.length));
              }
              for (int c = 0; c < sum.length; c++) {
                sum[c] += penalty[c] / group.size();
              }
              gradient.copyFromHost(sum);
            });
  }

  /**
   * Applies the constraints to gamma and beta, which an optimizer does after each update. Waits for
   * what is enqueued.
   */
  public void applyConstraints() {
    group.replicas().forEach(this::applyConstraints);
  }

  /** As {@link #applyConstraints()}, of one replica. */
  public void applyConstraints(Replica replica) {
    LayerReplica member = member(replica);
    gate.during(() -> applyConstraints(member.variables()));
  }

  private void applyConstraints(Map<String, DeviceTensor> variables) {
    config
        .constrained()
        .forEach(
            (name, constraint) ->
                variables
                    .get(name)
                    .copyFromHost(
                        constraint.apply(
                            variables.get(name).copyToHostAsDoubles(),
                            config.input().parameterShape())));
  }
}
