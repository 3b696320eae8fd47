package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.CpuKernels;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import io.github.syncbn4j.job.Call;
import java.util.List;

/**
 * One replica's part of a pass: what its four kernels are given. What does not change between steps
 * is set once, so that a step only fills in addresses, the shape and the signature.
 *
 * <p>The tensors are bound first, which checks them and enqueues nothing; the kernels then run
 * within a step of the group, in {@link PooledPass}'s order.
 */
final class PassPart {
  /** Values per channel that a forward leaves for its backward; see {@code saved} in syncbn.h. */
  private static final int SAVED_VALUES = 5;

  private final LayerReplica member;
  private final LayerConfig config;
  private final Device device;
  private final PassTensors tensors;
  private final Rows rows;

  // Retained, since a scope of the caller's that is open when they are made would end with them.
  private final syncbn_stats_args stats = new syncbn_stats_args().retainReference();
  private final syncbn_normalize_args normalize = new syncbn_normalize_args().retainReference();
  private final syncbn_backward_reduce_args reduce =
      new syncbn_backward_reduce_args().retainReference();
  private final syncbn_backward_input_args input =
      new syncbn_backward_input_args().retainReference();
  private long rowsAddress;
  private long savedAddress;
  private boolean training;
  private boolean trainable;
  private boolean captured;
  private long step;

  PassPart(LayerReplica member) {
    this.member = member;
    this.config = member.config();
    this.device = member.replica().device();
    this.tensors = new PassTensors(member);
    int world = member.replica().group().size();
    try {
      rowsAddress = member.replica().reserve(world * forwardRow(true) * Double.BYTES);
      savedAddress = member.replica().reserve(SAVED_VALUES * config.channels() * Double.BYTES);
    } catch (RuntimeException | Error e) {
      Cleanup.after(e, this::release);
      throw e;
    }
    rows = new Rows(member.replica().rank(), world, rowsAddress);
    setConstants(world, member.replica().rank(), device.control().address());
  }

  private void setConstants(int world, int rank, long control) {
    int dtype = config.dtype().code();
    long channels = config.channels();
    stats
        .struct_size(stats.sizeof())
        .dtype(dtype)
        .channels(channels)
        .world_size(world)
        .rank(rank)
        .rows(rowsAddress)
        .workspace(member.workspace());
    normalize
        .struct_size(normalize.sizeof())
        .dtype(dtype)
        .channels(channels)
        .world_size(world)
        .epsilon(config.epsilon())
        .decay(1 - config.momentum())
        .gamma(member.address("gamma"))
        .beta(member.address("beta"))
        .rows(rowsAddress)
        .moving_mean(member.address("moving_mean"))
        .moving_variance(member.address("moving_variance"))
        .saved(savedAddress)
        .control(control)
        .workspace(member.workspace())
        .relu(flag(config.relu()))
        .renorm(flag(config.renorm()))
        .unbiased(flag(config.unbiased()))
        .cumulative(flag(config.cumulative()))
        .renorm_decay(1 - config.renormMomentum())
        .r_min(config.clipping().lowestR())
        .r_max(config.clipping().highestR())
        .d_max(config.clipping().highestD())
        .moving_stddev(member.address("moving_stddev"))
        .renorm_mean(member.address("renorm_mean"))
        .renorm_stddev(member.address("renorm_stddev"))
        .updates(member.updates());
    reduce
        .struct_size(reduce.sizeof())
        .dtype(dtype)
        .channels(channels)
        .world_size(world)
        .rank(rank)
        .saved(savedAddress)
        .workspace(member.workspace())
        .gamma(member.address("gamma"))
        .beta(member.address("beta"))
        .relu(flag(config.relu()));
    input
        .struct_size(input.sizeof())
        .dtype(dtype)
        .channels(channels)
        .world_size(world)
        .gamma(member.address("gamma"))
        .saved(savedAddress)
        .rows(rowsAddress)
        .control(control)
        .beta(member.address("beta"));
  }

  private static int flag(boolean value) {
    return value ? 1 : 0;
  }

  private long forwardRow(boolean counts) {
    return 2 + (counts ? 3 : 2) * config.channels();
  }

  private long backwardRow() {
    return 1 + 2 * config.channels();
  }

  Rows rows() {
    return rows;
  }

  /** Whether its forward normalized with the statistics of its batch. */
  boolean training() {
    return training;
  }

  /** To bind, before a step of theirs. */
  PassTensors tensors() {
    return tensors;
  }

  /**
   * Takes the tensors of a forward; see {@link PassTensors#bindForward}.
   *
   * @param isTrainable whether the layer is, for this forward and its backward
   */
  void bindForward(
      DeviceTensor x,
      DeviceTensor y,
      DeviceTensor residual,
      DeviceTensor mask,
      boolean wantsTraining,
      boolean isTrainable) {
    trainable = isTrainable;
    training = wantsTraining && trainable;
    tensors.bindForward(x, y, residual, mask, training);
  }

  /**
   * Before a step: where its kernels go into a graph, keeps the memory that they name for as long
   * as the layer lives.
   *
   * @throws IllegalStateException if there would be memory to allocate
   */
  void prepareCapture() {
    captured = member.replica().isCapturing();
    if (captured) {
      tensors.keepForGraph();
    }
  }

  /** Makes sure of the memory for what is bound. May wait for the device and allocate. */
  void reserve() {
    tensors.reserve();
  }

  // ------------------------------------------------------------------------------------------------------ forward

  /** Begins the step of a forward that is bound. */
  void startForward() {
    reserve();
    tensors.x.load();
    tensors.residual.load();
    tensors.mask.load();
    tensors.adjustScale.load();
    tensors.adjustBias.load();
    normalize.statistics(training ? CpuKernels.SYNCBN_BATCH : CpuKernels.SYNCBN_MOVING);
    if (tensors.mask.isBound()) {
      setMaskStrides();
    }
    if (training) {
      step = member.nextStep();
      double signature = member.signature(step, false);
      rows.length(forwardRow(tensors.countsChannels()));
      stats
          .outer(tensors.layout().outer())
          .inner(tensors.layout().inner())
          .signature(signature)
          .x(tensors.x.address())
          .mask(tensors.mask.address())
          .channel_counts(flag(tensors.countsChannels()));
      normalize.signature(signature).channel_counts(flag(tensors.countsChannels()));
    }
  }

  private void setMaskStrides() {
    long outer = tensors.maskOuterStride();
    long channel = tensors.maskChannelStride();
    long inner = tensors.maskInnerStride();
    stats.mask_outer_stride(outer).mask_channel_stride(channel).mask_inner_stride(inner);
    reduce.mask_outer_stride(outer).mask_channel_stride(channel).mask_inner_stride(inner);
    input.mask_outer_stride(outer).mask_channel_stride(channel).mask_inner_stride(inner);
  }

  void stats() {
    device.stats(stats);
  }

  syncbn_stats_args statsArgs() {
    return stats;
  }

  syncbn_normalize_args normalizeArgs() {
    return normalize;
  }

  /**
   * Says that its row comes to an exchange. A graph's replays say nothing: that they are the same
   * on all replicas is the caller's.
   */
  void announce(boolean backward) {
    if (!captured) {
      int type = config.dtype().code() | (tensors.countsChannels() && !backward ? Call.COUNTED : 0);
      long what = (long) member.signature(step, backward);
      Replica replica = member.replica();
      replica.group().calls().announce(replica.rank(), what, config.channels(), type);
    }
  }

  /** The statistics of the pass's forward take the place of others. */
  void startRecompute() {
    reserve();
    tensors.x.load();
    tensors.residual.load();
    normalize.statistics(CpuKernels.SYNCBN_SAVED);
  }

  void normalize() {
    bindNormalize();
    device.normalize(normalize);
    endForward();
  }

  void bindNormalize() {
    normalize
        .outer(tensors.layout().outer())
        .inner(tensors.layout().inner())
        .x(tensors.x.address())
        .y(tensors.y.address())
        .residual(tensors.residual.address())
        .relu_mask(tensors.reluMask.address())
        .adjust_scale(tensors.adjustScale.address())
        .adjust_bias(tensors.adjustBias.address());
  }

  /** Once y is computed. */
  void endForward() {
    tensors.y.store();
  }

  // ----------------------------------------------------------------------------------------------------- backward

  /** Begins the step of a backward that is bound. */
  void startBackward() {
    reserve();
    tensors.dy.load();
    rows.length(backwardRow());
    double signature = member.signature(step, true);
    reduce
        .outer(tensors.layout().outer())
        .inner(tensors.layout().inner())
        .signature(signature)
        .x(tensors.x.address())
        .dy(tensors.dy.address())
        .rows(training ? rowsAddress : 0)
        .gamma_grad(trainable ? member.gradientAddress("gamma") : 0)
        .beta_grad(trainable ? member.gradientAddress("beta") : 0)
        .mask(tensors.mask.address())
        .relu_mask(tensors.reluMask.address())
        .dresidual(tensors.dresidual.address())
        .adjust_scale(tensors.adjustScale.address())
        .adjust_bias(tensors.adjustBias.address());
    // Behind a residual, what came back through the ReLU is in dresidual.
    input
        .outer(tensors.layout().outer())
        .inner(tensors.layout().inner())
        .training(flag(training))
        .signature(signature)
        .x(tensors.x.address())
        .dy(tensors.dresidual.isBound() ? tensors.dresidual.address() : tensors.dy.address())
        .dx(tensors.dx.address())
        .mask(tensors.mask.address())
        .adjust_scale(tensors.adjustScale.address())
        .adjust_bias(tensors.adjustBias.address())
        .relu(flag(config.relu() && !tensors.residual.isBound()));
  }

  void backwardReduce() {
    device.backwardReduce(reduce);
    tensors.dresidual.store();
  }

  void backwardInput() {
    device.backwardInput(input);
    tensors.dx.store();
  }

  /** Once both halves are done, where they were one call. */
  void endBackward() {
    tensors.dresidual.store();
    tensors.dx.store();
  }

  syncbn_backward_reduce_args reduceArgs() {
    return reduce;
  }

  syncbn_backward_input_args inputArgs() {
    return input;
  }

  void release() {
    Cleanup.runAll(
        List.of(
            tensors::release,
            () -> member.replica().free(savedAddress),
            () -> member.replica().free(rowsAddress)));
  }
}
