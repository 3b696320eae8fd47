package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

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
 * same bits on every replica. Inference uses the moving statistics and changes nothing. A replica
 * may have no examples; a step in which none has any changes no state.
 *
 * <p><b>Now supported:</b> float32, channels last (any rank from 2, the channels in the last
 * dimension), row-major.
 *
 * <p><b>Threads.</b> Either one thread calls the methods that take lists, or each replica's thread
 * those that take a {@link Replica}. Every replica has to make the same calls in the same order.
 * Calls enqueue and return; on the CPU they have run.
 *
 * <p><b>Memory.</b> Variables live on each replica and belong to the layer. Passes are pooled: a
 * step allocates no native memory once as many passes have been open together as ever will be.
 *
 * <p><b>Errors.</b> {@link IllegalArgumentException} for tensors that do not fit, before anything
 * is enqueued; {@link DeviceException} and {@link CollectiveException} for what fails on the way,
 * which fails the group.
 */
public final class SyncBatchNormalization implements AutoCloseable {
  private static final long CLOSE_GRACE_NANOS = TimeUnit.SECONDS.toNanos(1);
  private static final long CLOSE_POLL_NANOS = TimeUnit.MICROSECONDS.toNanos(50);

  private final ReplicaGroup group;
  private final LayerConfig config;
  private final int id;
  private final List<LayerReplica> members;
  private final PassPool allRanks;

  /** Calls of this layer in any thread, which closing must not pull the memory from under. */
  private final AtomicInteger callsUnderWay = new AtomicInteger();

  private volatile boolean closed;

  private SyncBatchNormalization(ReplicaGroup group, LayerConfig config) {
    this.group = group;
    this.config = config;
    this.id = group.nextLayerId();
    List<LayerReplica> built = new ArrayList<>();
    this.members = Collections.unmodifiableList(built);
    this.allRanks = new PassPool(this, members);
    try {
      for (Replica replica : group.replicas()) {
        built.add(new LayerReplica(replica, id, config));
      }
      group.register(this);
    } catch (RuntimeException | Error e) {
      built.forEach(member -> Cleanup.after(e, member::close));
      throw e;
    }
  }

  /**
   * A layer for tensors of {@code channels} channels on all replicas of {@code group}.
   *
   * @throws IllegalArgumentException unless {@code channels} is 1 to 2^28
   */
  public static Builder builder(ReplicaGroup group, long channels) {
    return new Builder(group, channels);
  }

  public ReplicaGroup group() {
    return group;
  }

  public long channels() {
    return config.channels();
  }

  // ------------------------------------------------------------------------------------------------ all replicas

  /**
   * Normalizes one tensor a replica.
   *
   * @param x in rank order, float32 {@code [..., channels]}; each must stay as it is until the last
   *     backward of this pass
   * @param y where the results go: the shapes of {@code x}; may be {@code x} itself if there is no
   *     backward
   * @param training statistics of this batch and an update of the moving ones, or the moving
   *     statistics
   * @return what backward needs; close it to let its memory be used again
   */
  public ForwardPass forward(List<DeviceTensor> x, List<DeviceTensor> y, boolean training) {
    requireOnePerReplica(x, "x");
    requireOnePerReplica(y, "y");
    begin();
    try {
      for (int i = 0; i < members.size(); i++) {
        members.get(i).checkTensor(x.get(i), "x");
        members.get(i).checkSame(y.get(i), "y", x.get(i));
      }
      ForwardPass pass = allRanks.take();
      for (int i = 0; i < members.size(); i++) {
        pass.part(i).prepareForward(x.get(i), y.get(i), training);
      }
      return runForward(pass);
    } finally {
      end();
    }
  }

  /** An inference forward that no backward will follow. */
  public void infer(List<DeviceTensor> x, List<DeviceTensor> y) {
    forward(x, y, false).close();
  }

  /**
   * The input gradients, and the parameter gradients of each replica, of a pass over all replicas.
   *
   * @param dy in rank order, the gradient of the loss by {@code y}: the shapes of {@code x}
   * @param dx where the input gradients go; may be {@code dy} itself
   * @see #gammaGradient
   */
  public void backward(ForwardPass pass, List<DeviceTensor> dy, List<DeviceTensor> dx) {
    requireOnePerReplica(dy, "dy");
    requireOnePerReplica(dx, "dx");
    begin();
    try {
      pass.requireOpen(this);
      pass.requireParts(members.size());
      for (int i = 0; i < members.size(); i++) {
        pass.part(i).checkGradients(dy.get(i), dx.get(i));
      }
      for (int i = 0; i < members.size(); i++) {
        pass.part(i).prepareBackward(dy.get(i), dx.get(i));
      }
      group.step(pass.backward());
    } finally {
      end();
    }
  }

  // ------------------------------------------------------------------------------------------------- one replica

  /**
   * Normalizes one replica's tensor: every replica's thread has to call it.
   *
   * @see #forward(List, List, boolean)
   */
  public ForwardPass forward(Replica replica, DeviceTensor x, DeviceTensor y, boolean training) {
    LayerReplica member = member(replica);
    begin();
    try {
      member.checkTensor(x, "x");
      member.checkSame(y, "y", x);
      ForwardPass pass = member.passes(this).take();
      pass.part(0).prepareForward(x, y, training);
      return runForward(pass);
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

  /**
   * The gradients of one replica's pass: every replica's thread has to call it.
   *
   * @see #backward(ForwardPass, List, List)
   */
  public void backward(ForwardPass pass, DeviceTensor dy, DeviceTensor dx) {
    begin();
    try {
      pass.requireOpen(this);
      pass.requireParts(1);
      pass.part(0).checkGradients(dy, dx);
      pass.part(0).prepareBackward(dy, dx);
      group.step(pass.backward());
    } finally {
      end();
    }
  }

  // ---------------------------------------------------------------------------------------------------- variables

  /**
   * A replica's scale, float32 {@code [channels]}; the layer's own memory. It starts with ones.
   *
   * @throws IllegalStateException if the layer has none ({@code scale(false)})
   */
  public DeviceTensor gamma(Replica replica) {
    return require(member(replica).gamma(), "gamma", "scale");
  }

  /**
   * A replica's offset, float32 {@code [channels]}; the layer's own memory. It starts with zeros.
   *
   * @throws IllegalStateException if the layer has none ({@code center(false)})
   */
  public DeviceTensor beta(Replica replica) {
    return require(member(replica).beta(), "beta", "center");
  }

  /**
   * A replica's moving mean, float32 {@code [channels]}; the layer's own memory. It starts with
   * zeros.
   */
  public DeviceTensor movingMean(Replica replica) {
    return member(replica).movingMean().view();
  }

  /**
   * A replica's moving (biased) variance, float32 {@code [channels]}; the layer's own memory. It
   * starts with ones.
   */
  public DeviceTensor movingVariance(Replica replica) {
    return member(replica).movingVariance().view();
  }

  /**
   * The gradient of the loss by {@code gamma} from this replica's examples alone, float32 {@code
   * [channels]}, as the last backward wrote it. Not reduced over the replicas.
   *
   * @throws IllegalStateException if the layer has no gamma
   */
  public DeviceTensor gammaGradient(Replica replica) {
    return require(member(replica).gammaGradient(), "gamma", "scale");
  }

  /**
   * The gradient of the loss by {@code beta}, as {@link #gammaGradient}.
   *
   * @throws IllegalStateException if the layer has no beta
   */
  public DeviceTensor betaGradient(Replica replica) {
    return require(member(replica).betaGradient(), "beta", "center");
  }

  /**
   * Releases the variables and passes, after waiting for what is enqueued. Idempotent.
   *
   * @throws IllegalStateException if another thread is in a call of the layer and stays there
   */
  @Override
  public synchronized void close() {
    if (closed) {
      return;
    }
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
    group.replicas().forEach(replica -> releases.add(() -> group.settle(replica)));
    releases.add(allRanks::close);
    members.forEach(member -> releases.add(member::close));
    Cleanup.runAll(releases);
  }

  @Override
  public String toString() {
    return "SyncBatchNormalization layer " + id + " " + config;
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

  private ForwardPass runForward(ForwardPass pass) {
    boolean done = false;
    try {
      group.step(pass.forward());
      done = true;
      return pass;
    } finally {
      if (!done) {
        pass.close();
      }
    }
  }

  private LayerReplica member(Replica replica) {
    Objects.requireNonNull(replica, "replica");
    if (replica.group() != group) {
      throw new IllegalArgumentException(replica + " belongs to another group than the layer");
    }
    return members.get(replica.rank());
  }

  private void requireOnePerReplica(List<DeviceTensor> tensors, String name) {
    Objects.requireNonNull(tensors, name);
    if (tensors.size() != members.size()) {
      throw new IllegalArgumentException(
          "%s has %d tensors, the group has %d replicas"
              .formatted(name, tensors.size(), members.size()));
    }
  }

  private static DeviceTensor require(DeviceTensor variable, String name, String option) {
    if (variable == null) {
      throw new IllegalStateException(
          "the layer has no " + name + ": it was built with " + option + "(false)");
    }
    return variable.view();
  }

  /** Options by Keras' names, with Keras' defaults. */
  public static final class Builder {
    private static final long MOST_CHANNELS = 1 << 28;

    private final ReplicaGroup group;
    private final long channels;
    private double momentum = 0.99;
    private double epsilon = 1e-3;
    private boolean center = true;
    private boolean scale = true;

    private Builder(ReplicaGroup group, long channels) {
      this.group = Objects.requireNonNull(group, "group");
      if (channels < 1 || channels > MOST_CHANNELS) {
        throw new IllegalArgumentException(
            "channels must be 1 to " + MOST_CHANNELS + ", not " + channels);
      }
      this.channels = channels;
    }

    /**
     * Weight of the old value in the moving statistics; PyTorch's momentum is one minus this.
     * Default 0.99.
     */
    public Builder momentum(double momentum) {
      requireFinite(momentum, "momentum");
      this.momentum = momentum;
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

    /** Allocates the variables on every replica. */
    public SyncBatchNormalization build() {
      return new SyncBatchNormalization(
          group, new LayerConfig(channels, momentum, epsilon, center, scale));
    }

    private static void requireFinite(double value, String name) {
      if (!Double.isFinite(value)) {
        throw new IllegalArgumentException(name + " must be finite, not " + value);
      }
    }
  }
}
