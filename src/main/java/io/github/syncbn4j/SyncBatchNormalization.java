package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.nn.Constraint;
import io.github.syncbn4j.nn.Initializer;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Batch normalization whose training statistics are those of the whole batch, over all replicas of
 * a group: the behaviour of Keras' {@code SyncBatchNormalization}.
 *
 * <pre>{@code
 * try (var group = ReplicaGroup.cpus(2);
 *     var layer = SyncBatchNormalization.builder(group, 64).momentum(0.9).build()) {
 *   List<DeviceTensor> x = ..., y = ..., dy = ..., dx = ...; // one a replica, float32 [batch, ..., 64]
 *   try (ForwardPass pass = layer.forward(x, y, true)) {     // training
 *     layer.backward(pass, dy, dx);                          // dx, and gammaGradient, betaGradient of each replica
 *   }
 * }
 * }</pre>
 *
 * <p><b>Formulas.</b> Training: {@code y = (x - mean) / sqrt(variance + epsilon) * gamma + beta}
 * with the mean and the biased variance per channel of all replicas' elements, each element of
 * weight 1; then, for mean and variance, {@code moving += (batch - moving) * (1 - momentum)}, the
 * same bits on every replica. Inference uses the moving statistics and changes nothing; so does a
 * layer that is not {@linkplain #setTrainable trainable}. A replica may have no examples; a channel
 * in which no element counts keeps its state. Options add batch renormalization, an adjustment, a
 * residual and a ReLU; see {@link Builder}.
 *
 * <p><b>Tensors.</b> Any rank from 1, any axis or axes for the channels, any strides; dense ones
 * whose axes lie together in memory are used where they are, others are copied on the device. All
 * of the layer's {@link DType}; parameters and statistics are float64 for float64, else float32.
 * 16-bit tensors are computed with in float32 and rounded once.
 *
 * <p><b>Threads.</b> Either one thread calls the methods that take lists, or each replica's thread
 * those that take a {@link Replica}. Every replica has to make the same calls in the same order.
 * Calls enqueue and return; on the CPU they have run.
 *
 * <p><b>Memory.</b> Variables live on each replica and belong to the layer. Passes are pooled: a
 * step allocates no native memory once as many passes have been open together, with tensors as
 * large, as ever will be.
 *
 * <p><b>CUDA graphs.</b> Steps of one replica, on a stream of the caller's ({@link
 * Replica#useStream}), can be captured and replayed, with a thread for each replica where there are
 * several; each replay moves the state on. Take a step as large, with as many open passes, before
 * the capture, which cannot allocate. The layer, the tensors, and passes whose backward is in
 * another graph must stay open for as long as the graph is used. An adjustment is called at the
 * capture alone.
 *
 * <p><b>Errors.</b> {@link IllegalArgumentException} for tensors that do not fit, before anything
 * is enqueued; {@link DeviceException} and {@link CollectiveException} for what fails on the way,
 * which fails the group.
 *
 * <p>Sources: Keras' {@code SyncBatchNormalization} (TF 2.4, and 2.13 for masks); Ioffe and
 * Szegedy, arXiv:1502.03167; Ioffe, Batch Renormalization, arXiv:1702.03275.
 */
public final class SyncBatchNormalization implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(SyncBatchNormalization.class);
  private static final long MOST_STEPS = 1L << 53;
  private static final long CLOSE_GRACE_NANOS = TimeUnit.SECONDS.toNanos(1);
  private static final long CLOSE_POLL_NANOS = TimeUnit.MICROSECONDS.toNanos(50);

  private final ReplicaGroup group;
  private final LayerConfig config;
  private final int id;
  private final List<LayerReplica> members;
  private final PassPool allRanks;

  /** Calls of this layer in any thread, which closing must not pull the memory from under. */
  private final AtomicInteger callsUnderWay = new AtomicInteger();

  private volatile boolean trainable;
  private volatile boolean closed;

  private SyncBatchNormalization(
      ReplicaGroup group, LayerConfig config, boolean trainable, StateMemory memory) {
    this.group = group;
    this.config = config;
    this.trainable = trainable;
    Map<String, double[]> initial = config.initialValues();
    this.id = group.nextLayerId();
    List<LayerReplica> built = new ArrayList<>();
    this.members = Collections.unmodifiableList(built);
    this.allRanks = new PassPool(this, members);
    try {
      for (Replica replica : group.replicas()) {
        built.add(new LayerReplica(replica, id, config, initial, memory));
      }
      group.register(this);
      if (memory == null) {
        equalize();
      }
    } catch (RuntimeException | Error e) {
      built.forEach(member -> Cleanup.after(e, member::close));
      throw e;
    }
  }

  /** Gives the variables in all processes the values that rank 0 has drawn. */
  private void equalize() {
    if (members.size() < group.size()) {
      for (LayerReplica member : members) {
        for (DeviceTensor variable : member.variables().values()) {
          member.replica().broadcast(variable, 0);
        }
      }
    }
  }

  /**
   * A layer for tensors of {@code channels} channels, in one axis, of any rank that has it.
   *
   * @throws IllegalArgumentException unless {@code channels} is 1 to 2^28
   */
  public static Builder builder(ReplicaGroup group, long channels) {
    return new Builder(group).channels(channels);
  }

  /**
   * A layer whose channels are known from the shape that {@link Builder#build(long...)} is given.
   */
  public static Builder builder(ReplicaGroup group) {
    return new Builder(group);
  }

  /** A builder with the options of a configuration; see {@link Builder#config}. */
  public static Builder fromConfig(ReplicaGroup group, String json) {
    return new Builder(group).config(json);
  }

  public ReplicaGroup group() {
    return group;
  }

  /** As built, or as Keras would name it: {@code sync_batch_normalization_1}. */
  public String name() {
    return config.name();
  }

  /** Of the tensors that it normalizes. */
  public DType dtype() {
    return config.dtype();
  }

  public long channels() {
    return config.channels();
  }

  /**
   * The layer's options as JSON, with the keys of Keras' {@code get_config}; the axis is resolved
   * where the rank is known. An adjustment is left out, with a warning in the log.
   *
   * @throws IllegalArgumentException for an initializer, regularizer or constraint of the caller's
   *     own, which has no configuration
   */
  public String getConfig() {
    if (config.adjustment() != null) {
      LOG.warn(
          "the adjustment of {} cannot be serialized and is left out of its configuration", this);
    }
    return KerasConfig.write(config, trainable);
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

  // ------------------------------------------------------------------------------------------------ all replicas

  /**
   * Normalizes one tensor a replica.
   *
   * @param x in rank order; each must stay as it is until the last backward of this pass
   * @param y where the results go: the shapes of {@code x}; may be {@code x} itself if there is no
   *     backward
   * @param training statistics of this batch and an update of the moving ones, or the moving
   *     statistics
   * @return what backward needs; close it to let its memory be used again
   */
  public ForwardPass forward(List<DeviceTensor> x, List<DeviceTensor> y, boolean training) {
    return forward(x, y, null, null, training);
  }

  /**
   * Normalizes one tensor a replica, and adds a residual before the ReLU, if there is one.
   *
   * @param residual added to the normalized values: the shapes of {@code x}; may be {@code y}; null
   *     for none
   * @param mask which elements count in the statistics: bool, the shapes of {@code x} without the
   *     last dimension, along which it is repeated; null for all, and a null element for all of a
   *     replica. The others are normalized too, but their values reach nothing else, even if they
   *     are NaN. As {@code x}, it must stay as it is. Inference ignores it.
   * @see #forward(List, List, boolean)
   */
  public ForwardPass forward(
      List<DeviceTensor> x,
      List<DeviceTensor> y,
      List<DeviceTensor> residual,
      List<DeviceTensor> mask,
      boolean training) {
    requireOnePerReplica(x, "x");
    requireOnePerReplica(y, "y");
    requireOnePerReplicaOrNone(residual, "residual");
    requireOnePerReplicaOrNone(mask, "mask");
    begin();
    try {
      boolean trainableNow = trainable;
      PooledPass pass = allRanks.take();
      boolean done = false;
      try {
        for (int i = 0; i < members.size(); i++) {
          pass.part(i)
              .bindForward(
                  x.get(i), y.get(i), at(residual, i), at(mask, i), training, trainableNow);
        }
        pass.makeOneKind();
        pass.stepForward();
        done = true;
        return new ForwardPass(allRanks, pass);
      } finally {
        giveBackUnless(done, allRanks, pass);
      }
    } finally {
      end();
    }
  }

  /** An inference forward that no backward will follow. */
  public void infer(List<DeviceTensor> x, List<DeviceTensor> y) {
    infer(x, y, null);
  }

  /** As {@link #infer(List, List)}, with a residual or null. */
  public void infer(List<DeviceTensor> x, List<DeviceTensor> y, List<DeviceTensor> residual) {
    forward(x, y, residual, null, false).close();
  }

  /**
   * Computes the outputs of an open pass again, with its statistics: nothing is exchanged, and no
   * state changes. For activations that were dropped and are needed for backward.
   *
   * @param x the values of the pass's forward, with its shapes and strides; from now on the pass's
   * @param y where the results go
   * @param residual as in the forward; null if it had none
   */
  public void recompute(
      ForwardPass pass, List<DeviceTensor> x, List<DeviceTensor> y, List<DeviceTensor> residual) {
    requireOnePerReplica(x, "x");
    requireOnePerReplica(y, "y");
    requireOnePerReplicaOrNone(residual, "residual");
    begin();
    try {
      PooledPass pooled = pass.require(this, members.size());
      for (int i = 0; i < members.size(); i++) {
        pooled.part(i).tensors().checkRecompute(x.get(i), y.get(i), at(residual, i));
      }
      for (int i = 0; i < members.size(); i++) {
        pooled.part(i).tensors().bindValues(x.get(i), y.get(i), at(residual, i));
      }
      pooled.stepRecompute();
    } finally {
      end();
    }
  }

  /**
   * The input gradients, and the parameter gradients of each replica, of a pass over all replicas.
   *
   * @param dy in rank order, the gradient of the loss by {@code y}: the shapes of {@code x}
   * @param dx where the input gradients go; may be {@code dy} itself
   * @see #gammaGradient
   */
  public void backward(ForwardPass pass, List<DeviceTensor> dy, List<DeviceTensor> dx) {
    backward(pass, dy, dx, null);
  }

  /**
   * As {@link #backward(ForwardPass, List, List)}, of a pass with a residual. Gamma and beta must
   * be what they were in forward.
   *
   * @param dresidual where the gradients of the loss by the residuals go; may be {@code dy}, but
   *     not {@code dx}; null if the pass has no residual
   */
  public void backward(
      ForwardPass pass,
      List<DeviceTensor> dy,
      List<DeviceTensor> dx,
      List<DeviceTensor> dresidual) {
    requireOnePerReplica(dy, "dy");
    requireOnePerReplica(dx, "dx");
    requireOnePerReplicaOrNone(dresidual, "dresidual");
    begin();
    try {
      PooledPass pooled = pass.require(this, members.size());
      for (int i = 0; i < members.size(); i++) {
        pooled.part(i).tensors().bindBackward(dy.get(i), dx.get(i), at(dresidual, i));
      }
      pooled.stepBackward();
    } finally {
      end();
    }
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

  private void forEachTrainedParameter(Consumer<String> action) {
    whileOpen(() -> (trainable ? config.parameters() : List.<String>of()).forEach(action));
  }

  // ------------------------------------------------------------------------------------------------- one replica

  /**
   * Normalizes one replica's tensor: every replica's thread has to call it.
   *
   * @see #forward(List, List, boolean)
   */
  public ForwardPass forward(Replica replica, DeviceTensor x, DeviceTensor y, boolean training) {
    return forward(replica, x, y, null, null, training);
  }

  /**
   * As {@link #forward(List, List, List, List, boolean)}, of one replica; residual and mask may be
   * null. Where the last dimension is not the one axis, either all replicas have a mask or none.
   */
  public ForwardPass forward(
      Replica replica,
      DeviceTensor x,
      DeviceTensor y,
      DeviceTensor residual,
      DeviceTensor mask,
      boolean training) {
    LayerReplica member = member(replica);
    begin();
    try {
      PassPool pool = member.passes(this);
      PooledPass pass = pool.take();
      boolean done = false;
      try {
        pass.part(0).bindForward(x, y, residual, mask, training, trainable);
        pass.stepForward();
        done = true;
        return new ForwardPass(pool, pass);
      } finally {
        giveBackUnless(done, pool, pass);
      }
    } finally {
      end();
    }
  }

  /**
   * An inference forward of one replica that no backward will follow; the other replicas need not
   * take part.
   */
  public void infer(Replica replica, DeviceTensor x, DeviceTensor y) {
    forward(replica, x, y, false).close();
  }

  /** As {@link #infer(Replica, DeviceTensor, DeviceTensor)}, with a residual or null. */
  public void infer(Replica replica, DeviceTensor x, DeviceTensor y, DeviceTensor residual) {
    forward(replica, x, y, residual, null, false).close();
  }

  /**
   * Computes one replica's outputs of an open pass again; the other replicas need not take part.
   *
   * @see #recompute(ForwardPass, List, List, List)
   */
  public void recompute(ForwardPass pass, DeviceTensor x, DeviceTensor y, DeviceTensor residual) {
    begin();
    try {
      PooledPass pooled = pass.require(this, 1);
      pooled.part(0).tensors().checkRecompute(x, y, residual);
      pooled.part(0).tensors().bindValues(x, y, residual);
      pooled.stepRecompute();
    } finally {
      end();
    }
  }

  /**
   * The gradients of one replica's pass: every replica's thread has to call it.
   *
   * @see #backward(ForwardPass, List, List)
   */
  public void backward(ForwardPass pass, DeviceTensor dy, DeviceTensor dx) {
    backward(pass, dy, dx, null);
  }

  /** As {@link #backward(ForwardPass, List, List, List)}, of one replica. */
  public void backward(ForwardPass pass, DeviceTensor dy, DeviceTensor dx, DeviceTensor dresidual) {
    begin();
    try {
      PooledPass pooled = pass.require(this, 1);
      pooled.part(0).tensors().bindBackward(dy, dx, dresidual);
      pooled.stepBackward();
    } finally {
      end();
    }
  }

  /** As {@link #allReduceGradients()}: every replica's thread has to call it. */
  public void allReduceGradients(Replica replica) {
    LayerReplica member = member(replica);
    forEachTrainedParameter(name -> replica.allReduce(member.gradients().get(name)));
  }

  // ---------------------------------------------------------------------------------------------------- variables

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
   * Values of the variables in the order of Keras' {@code get_weights}, row-major: the mean over
   * the replicas. These are equal unless somebody wrote to one alone. Waits for what is enqueued.
   */
  public List<double[]> getWeights() {
    return valueWhileOpen(this::meanWeights);
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
      if (weights.get(i).length != channels()) {
        throw new IllegalArgumentException(
            "%s has %d values, the layer has %d channels"
                .formatted(names.get(i), weights.get(i).length, channels()));
      }
    }
    whileOpen(
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
    return valueWhileOpen(members.get(0)::countedSteps);
  }

  /**
   * Which of these replicas, whose devices are idle, have taken steps that others have not: ranks
   * by the number of steps. For a group that has failed.
   *
   * @return null if all have taken the same
   */
  String differences(List<Replica> among) {
    Map<Long, List<Integer>> ranks =
        valueWhileOpen(
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
    whileOpen(() -> members.forEach(member -> member.setCountedSteps(steps)));
  }

  /**
   * The penalties of the regularizers, gamma's and then beta's, of those that there are; also of a
   * frozen layer. Add them to the loss once, not once a replica. Waits for what is enqueued.
   */
  public List<Double> losses() {
    return valueWhileOpen(() -> losses(members.get(0)));
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
    whileOpen(() -> addRegularizationGradients(member));
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
    whileOpen(() -> applyConstraints(member.variables()));
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

  /**
   * Inference as one multiplication and addition per channel, {@code y = x * scale + shift}, to be
   * folded into the layer before: {@code scale = gamma / sqrt(moving_variance + epsilon)}, {@code
   * shift = beta - moving_mean * scale}. A ReLU comes after it.
   */
  public record Folded(double[] scale, double[] shift) {}

  /** The replica's parameters and moving statistics, folded. Waits for what is enqueued. */
  public Folded fold(Replica replica) {
    LayerReplica member = member(replica);
    return valueWhileOpen(() -> fold(member.variables()));
  }

  private Folded fold(Map<String, DeviceTensor> variables) {
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
    return new Folded(factor, shift);
  }

  /**
   * Releases the variables and passes, after waiting for what is enqueued. Idempotent.
   *
   * @throws IllegalStateException if another thread is in a call of the layer and stays there, and
   *     while the stream of a replica is captured into a graph
   */
  @Override
  public synchronized void close() {
    if (closed) {
      return;
    }
    group.replicas().forEach(Replica::requireNoCapture);
    closed = true;
    long deadline = System.nanoTime() + CLOSE_GRACE_NANOS;
    while (callsUnderWay.get() > 0) {
      if (System.nanoTime() > deadline) {
        closed = false;
        throw new IllegalStateException("another thread is in a call of " + this);
      }
      LockSupport.parkNanos(CLOSE_POLL_NANOS);
    }
    group.forget(this);
    List<Runnable> releases = new ArrayList<>();
    group.replicas().forEach(replica -> releases.add(() -> group.waits().settle(replica)));
    releases.add(allRanks::close);
    members.forEach(member -> releases.add(member::close));
    Cleanup.runAll(releases);
  }

  @Override
  public String toString() {
    return "%s (layer %d of its group, %d channels, %s)"
        .formatted(config.name(), id, channels(), config.dtype());
  }

  // ------------------------------------------------------------------------------------------------------- inside

  private void begin() {
    callsUnderWay.incrementAndGet();
    if (closed) {
      end();
      throw new IllegalStateException("the layer is closed");
    }
  }

  private void end() {
    callsUnderWay.decrementAndGet();
  }

  private <T> T valueWhileOpen(Supplier<T> call) {
    begin();
    try {
      return call.get();
    } finally {
      end();
    }
  }

  private void whileOpen(Runnable call) {
    begin();
    try {
      call.run();
    } finally {
      end();
    }
  }

  private static void giveBackUnless(boolean done, PassPool pool, PooledPass pass) {
    if (!done) {
      pool.giveBack(pass);
    }
  }

  private LayerReplica member(Replica replica) {
    Objects.requireNonNull(replica, "replica");
    if (replica.group() != group) {
      throw new IllegalArgumentException(replica + " belongs to another group than the layer");
    }
    return members.get(replica.rank() - members.get(0).replica().rank());
  }

  private void requireOnePerReplica(List<DeviceTensor> tensors, String name) {
    Objects.requireNonNull(tensors, name);
    if (tensors.size() != members.size()) {
      throw new IllegalArgumentException(
          "%s has %d tensors, the group has %d replicas"
              .formatted(name, tensors.size(), members.size()));
    }
  }

  private void requireOnePerReplicaOrNone(List<DeviceTensor> tensors, String name) {
    if (tensors != null) {
      requireOnePerReplica(tensors, name);
    }
  }

  private static DeviceTensor at(List<DeviceTensor> tensors, int i) {
    return tensors == null ? null : tensors.get(i);
  }

  private static DeviceTensor require(Map<String, DeviceTensor> variables, String name) {
    DeviceTensor variable = variables.get(name);
    if (variable == null) {
      throw new IllegalStateException(
          "the layer has no %s: it was built with %s(false)"
              .formatted(name, name.equals("gamma") ? "scale" : "center"));
    }
    return variable.view();
  }

  /** Options by Keras' names, with Keras' defaults. Used by one thread. */
  public static final class Builder {
    private static final long MOST_CHANNELS = 1 << 28;
    private static final AtomicInteger NAMES = new AtomicInteger();

    private final ReplicaGroup group;
    private long channels;
    private String name;
    private boolean trainable = true;
    private DType dtype = DType.FLOAT32;
    private int[] axis = {-1};
    private double momentum = 0.99;
    private boolean cumulative;
    private double epsilon = 1e-3;
    private boolean center = true;
    private boolean scale = true;
    private Initializer betaInitializer = Initializers.zeros();
    private Initializer gammaInitializer = Initializers.ones();
    private Initializer movingMeanInitializer = Initializers.zeros();
    private Initializer movingVarianceInitializer = Initializers.ones();
    private Regularizer betaRegularizer;
    private Regularizer gammaRegularizer;
    private Constraint betaConstraint;
    private Constraint gammaConstraint;
    private boolean renorm;
    private RenormClipping clipping = RenormClipping.NONE;
    private double renormMomentum = 0.99;
    private boolean unbiased;
    private boolean relu;
    private Adjustment adjustment;
    private long[] batchInputShape;
    private List<double[]> weights;
    private StateMemory memory;

    private Builder(ReplicaGroup group) {
      this.group = Objects.requireNonNull(group, "group");
    }

    private Builder channels(long channels) {
      requireChannels(channels);
      this.channels = channels;
      return this;
    }

    /**
     * Sets the options that a configuration has, Keras' or {@link #getConfig}'s.
     *
     * @param json an object with the keys of Keras' {@code get_config}
     * @throws IllegalArgumentException for text that is no JSON object, a key that is not known,
     *     and a value that makes no sense
     */
    public Builder config(String json) {
      KerasConfig.read(json, this);
      return this;
    }

    private static void requireChannels(long channels) {
      if (channels < 1 || channels > MOST_CHANNELS) {
        throw new IllegalArgumentException(
            "channels must be 1 to " + MOST_CHANNELS + ", not " + channels);
      }
    }

    /**
     * Default: {@code sync_batch_normalization}, from the second in this process on with a number.
     */
    public Builder name(String name) {
      this.name = Objects.requireNonNull(name, "name");
      return this;
    }

    /** See {@link SyncBatchNormalization#setTrainable}. Default true. */
    public Builder trainable(boolean trainable) {
      this.trainable = trainable;
      return this;
    }

    /** Of the tensors that it normalizes. Default float32. */
    public Builder dtype(DType dtype) {
      if (!dtype.isFloatingPoint()) {
        throw new IllegalArgumentException("dtype must be a floating-point type, not " + dtype);
      }
      this.dtype = dtype;
      return this;
    }

    /**
     * The dimensions that index channels; negative ones count from the end. Their order does not
     * matter: channels are numbered with the last dimension fastest. Default -1; 1 for
     * channels-first. Several need {@link #build(long...)}.
     */
    public Builder axis(int... axis) {
      if (axis.length == 0) {
        throw new IllegalArgumentException("axis must name a dimension, not []");
      }
      this.axis = axis.clone();
      return this;
    }

    /**
     * Weight of the old value in the moving statistics; PyTorch's momentum is one minus this. Any
     * finite number, as in Keras. Default 0.99.
     */
    public Builder momentum(double momentum) {
      requireFinite(momentum, "momentum");
      this.momentum = momentum;
      this.cumulative = false;
      return this;
    }

    /**
     * Moving statistics are the average of all training steps: PyTorch's {@code momentum=None}. The
     * steps are counted for all channels together: behind masks that leave out a whole channel in
     * some steps, its average is not of those in which it counted alone.
     */
    public Builder cumulativeAverage() {
      this.cumulative = true;
      return this;
    }

    /** Added to the variance under the root; at least 0. Default 0.001. */
    public Builder epsilon(double epsilon) {
      requireFinite(epsilon, "epsilon");
      if (epsilon < 0) {
        throw new IllegalArgumentException("epsilon must be at least 0, not " + epsilon);
      }
      this.epsilon = epsilon;
      return this;
    }

    /** Whether there is an offset beta. Default true. */
    public Builder center(boolean center) {
      this.center = center;
      return this;
    }

    /** Whether there is a scale gamma. Default true. */
    public Builder scale(boolean scale) {
      this.scale = scale;
      return this;
    }

    /** Default zeros. As in Keras, null is {@code glorot_uniform}; so are the three below. */
    public Builder betaInitializer(Initializer initializer) {
      this.betaInitializer = initializer;
      return this;
    }

    /** Default ones. */
    public Builder gammaInitializer(Initializer initializer) {
      this.gammaInitializer = initializer;
      return this;
    }

    /** Default zeros. Also of {@code renorm_mean}. */
    public Builder movingMeanInitializer(Initializer initializer) {
      this.movingMeanInitializer = initializer;
      return this;
    }

    /** Default ones. Its root is where {@code moving_stddev} and {@code renorm_stddev} start. */
    public Builder movingVarianceInitializer(Initializer initializer) {
      this.movingVarianceInitializer = initializer;
      return this;
    }

    /** Default null: none. See {@link SyncBatchNormalization#losses}. */
    public Builder betaRegularizer(Regularizer regularizer) {
      this.betaRegularizer = regularizer;
      return this;
    }

    /** Default null: none. See {@link SyncBatchNormalization#losses}. */
    public Builder gammaRegularizer(Regularizer regularizer) {
      this.gammaRegularizer = regularizer;
      return this;
    }

    /** Default null: none. See {@link SyncBatchNormalization#applyConstraints()}. */
    public Builder betaConstraint(Constraint constraint) {
      this.betaConstraint = constraint;
      return this;
    }

    /** Default null: none. See {@link SyncBatchNormalization#applyConstraints()}. */
    public Builder gammaConstraint(Constraint constraint) {
      this.gammaConstraint = constraint;
      return this;
    }

    /** Batch renormalization (arXiv:1702.03275). Default false. */
    public Builder renorm(boolean renorm) {
      this.renorm = renorm;
      return this;
    }

    /** Limits of renorm's correction. Default {@link RenormClipping#NONE}. */
    public Builder renormClipping(RenormClipping clipping) {
      this.clipping = Objects.requireNonNull(clipping, "renorm_clipping");
      return this;
    }

    /** Weight of the old value in {@code renorm_mean} and {@code renorm_stddev}. Default 0.99. */
    public Builder renormMomentum(double renormMomentum) {
      requireFinite(renormMomentum, "renorm_momentum");
      this.renormMomentum = renormMomentum;
      return this;
    }

    /**
     * Whether the moving variance averages n / (n - 1) times the batch's, as PyTorch's. Default
     * false.
     */
    public Builder unbiasedRunningVariance(boolean unbiased) {
      this.unbiased = unbiased;
      return this;
    }

    /** Whether {@code max(., 0)} follows, after the residual if there is one. Default false. */
    public Builder relu(boolean relu) {
      this.relu = relu;
      return this;
    }

    /** Default null: none. */
    public Builder adjustment(Adjustment adjustment) {
      this.adjustment = adjustment;
      return this;
    }

    /**
     * The shape that {@link #build()} builds for: Keras' {@code batch_input_shape}, -1 for a
     * dimension of any size.
     */
    public Builder batchInputShape(long... shape) {
      this.batchInputShape = shape.clone();
      return this;
    }

    /** First values of all variables, in place of the initializers'; see {@link #setWeights}. */
    public Builder weights(List<double[]> weights) {
      this.weights = List.copyOf(weights);
      return this;
    }

    /**
     * Memory of the caller's with the state of every replica, in place of initial values in memory
     * of the layer's own. Default null: none.
     */
    public Builder stateMemory(StateMemory memory) {
      this.memory = memory;
      return this;
    }

    /**
     * Allocates the variables on every replica.
     *
     * @throws IllegalStateException if the channels are not known: see {@link #build(long...)}
     * @throws IllegalArgumentException for an initializer that cannot serve the parameters' shape
     */
    public SyncBatchNormalization build() {
      if (batchInputShape != null) {
        return build(batchInputShape);
      }
      if (channels == 0 || axis.length > 1) {
        throw new IllegalStateException(
            "axis %s: build with the shape of the input".formatted(Arrays.toString(axis)));
      }
      return build(InputSpec.ofChannels(axis[0], channels));
    }

    /**
     * Allocates the variables on every replica, for inputs of this shape.
     *
     * @param inputShape -1 for a dimension of any size, as Keras' {@code None}; those of the axes
     *     must be known
     * @throws IllegalArgumentException for rank 0, an axis that is not there, is named twice or has
     *     no known size; for an initializer that cannot serve the parameters' shape
     */
    public SyncBatchNormalization build(long... inputShape) {
      InputSpec input = InputSpec.ofShape(axis, inputShape);
      requireChannels(input.channels());
      if (channels != 0 && channels != input.channels()) {
        throw new IllegalArgumentException(
            "the input of shape %s has %d channels, the builder was given %d"
                .formatted(Arrays.toString(inputShape), input.channels(), channels));
      }
      return build(input);
    }

    private SyncBatchNormalization build(InputSpec input) {
      if (renorm && unbiased) {
        throw new IllegalArgumentException(
            "renorm keeps moving_stddev, of the biased kind: not with the unbiased variance");
      }
      LayerConfig config =
          new LayerConfig(
              name == null ? nextName() : name,
              dtype,
              input,
              momentum,
              cumulative,
              epsilon,
              center,
              scale,
              new LayerConfig.VariableInitializers(
                  betaInitializer,
                  gammaInitializer,
                  movingMeanInitializer,
                  movingVarianceInitializer),
              new LayerConfig.ParameterRegularizers(betaRegularizer, gammaRegularizer),
              new LayerConfig.ParameterConstraints(betaConstraint, gammaConstraint),
              renorm,
              clipping,
              renormMomentum,
              unbiased,
              relu,
              adjustment,
              batchInputShape);
      SyncBatchNormalization layer = new SyncBatchNormalization(group, config, trainable, memory);
      if (weights != null) {
        try {
          layer.setWeights(weights);
        } catch (RuntimeException e) {
          Cleanup.after(e, layer::close);
          throw e;
        }
      }
      return layer;
    }

    private static String nextName() {
      int number = NAMES.getAndIncrement();
      return "sync_batch_normalization" + (number == 0 ? "" : "_" + number);
    }

    private static void requireFinite(double value, String name) {
      if (!Double.isFinite(value)) {
        throw new IllegalArgumentException(name + " must be finite, not " + value);
      }
    }
  }
}
