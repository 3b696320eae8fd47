package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.state.Naming;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
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
public final class SyncBatchNormalization extends LayerParameters implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(SyncBatchNormalization.class);

  /** How long closing waits for other threads' calls. */
  private static final Duration CLOSE_GRACE = Duration.ofSeconds(1);

  private final LayerCalls calls;

  private SyncBatchNormalization(
      ReplicaGroup group, LayerConfig config, boolean trainable, StateMemory memory) {
    super(group, config, trainable, memory);
    this.calls = new LayerCalls(this, members, gate);
    try {
      group.register(this);
      if (memory == null) {
        equalize();
      }
    } catch (RuntimeException | Error e) {
      members.forEach(member -> Cleanup.after(e, member::close));
      throw e;
    }
  }

  /**
   * A layer for tensors of {@code channels} channels, in one axis, of any rank that has it.
   *
   * @throws IllegalArgumentException unless {@code channels} is 1 to 2^28
   */
  public static Builder builder(ReplicaGroup group, long channels) {
    Builder builder = new Builder(group);
    builder.setChannels(channels);
    return builder;
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
   * Writes the variables and {@link #countedSteps} to a safetensors file, bit for bit.
   *
   * @throws IOException with the file's name; the file that was there is then as it was
   * @see LayerState for several layers in one file, and for other frameworks' names
   */
  public void save(Path file) throws IOException {
    LayerState.save(file, Map.of("", this), Naming.SYNCBN4J);
  }

  /**
   * Gives all replicas the state that {@link #save} wrote.
   *
   * @throws IOException with what is missing, unexpected, or of another dtype or shape; nothing has
   *     changed then
   */
  public void load(Path file) throws IOException {
    LayerState.load(file, Map.of("", this), Naming.SYNCBN4J);
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
    return KerasConfig.write(config, isTrainable());
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
    return calls.forward(x, y, residual, mask, training);
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
    calls.recompute(pass, x, y, residual);
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
    calls.backward(pass, dy, dx, dresidual);
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
    return calls.forward(member(replica), x, y, residual, mask, training);
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
    calls.recompute(pass, x, y, residual);
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
    calls.backward(pass, dy, dx, dresidual);
  }

  /**
   * Releases the variables and passes, after waiting for what is enqueued. Idempotent.
   *
   * @throws IllegalStateException if another thread is in a call of the layer and stays there, and
   *     while the stream of a replica is captured into a graph
   */
  @Override
  public synchronized void close() {
    if (gate.isShut()) {
      return;
    }
    group.replicas().forEach(Replica::requireNoCapture);
    gate.shut();
    if (!Waiting.until(gate::isEmpty, CLOSE_GRACE)) {
      gate.reopen();
      throw new IllegalStateException("another thread is in a call of " + this);
    }
    group.forget(this);
    List<Runnable> releases = new ArrayList<>();
    group.replicas().forEach(replica -> releases.add(() -> group.waits().settle(replica)));
    releases.add(calls::close);
    members.forEach(member -> releases.add(member::close));
    Cleanup.runAll(releases);
  }

  @Override
  public String toString() {
    return "%s (layer %d of its group, %d channels, %s)"
        .formatted(config.name(), id, channels(), config.dtype());
  }

  /**
   * Inference as one multiplication and addition per channel, {@code y = x * scale + shift}, to be
   * folded into the layer before: {@code scale = gamma / sqrt(moving_variance + epsilon)}, {@code
   * shift = beta - moving_mean * scale}. A ReLU comes after it.
   */
  public record Folded(double[] scale, double[] shift) {}

  /** Options by Keras' names, with Keras' defaults. Used by one thread. */
  public static final class Builder extends LayerOptions {
    private final ReplicaGroup group;

    private Builder(ReplicaGroup group) {
      this.group = Objects.requireNonNull(group, "group");
    }

    /**
     * Allocates the variables on every replica.
     *
     * @throws IllegalStateException if the channels are not known: see {@link #build(long...)}
     * @throws IllegalArgumentException for an initializer that cannot serve the parameters' shape
     */
    public SyncBatchNormalization build() {
      return build(layerConfig());
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
      return build(layerConfig(inputShape));
    }

    private SyncBatchNormalization build(LayerConfig config) {
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
  }
}
