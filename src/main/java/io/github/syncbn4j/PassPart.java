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
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * One replica's part of a pass: its buffers and the argument structs of the four kernels. What does
 * not change between steps is set once, so that a step only fills in addresses, the shape and the
 * signature.
 *
 * <p>A direction is bound first, which checks the tensors and enqueues nothing, and then run within
 * a step of the group.
 */
final class PassPart {
  /** Values per channel that a forward leaves for its backward; see {@code saved} in syncbn.h. */
  private static final int SAVED_VALUES = 5;

  private final LayerReplica member;
  private final LayerConfig config;
  private final Device device;
  private final Rows rows;
  private final List<Operand> operands = new ArrayList<>();
  private final Operand x;
  private final Operand y;
  private final Operand residual;
  private final Operand mask;
  private final Operand reluMask;
  private final Operand adjustScale;
  private final Operand adjustBias;
  private final Operand dy;
  private final Operand dx;
  private final Operand dresidual;

  // Retained, since a scope of the caller's that is open when they are made would end with them.
  private final syncbn_stats_args stats = new syncbn_stats_args().retainReference();
  private final syncbn_normalize_args normalize = new syncbn_normalize_args().retainReference();
  private final syncbn_backward_reduce_args reduce =
      new syncbn_backward_reduce_args().retainReference();
  private final syncbn_backward_input_args input =
      new syncbn_backward_input_args().retainReference();
  private long rowsAddress;
  private long savedAddress;
  private Layout layout;
  private int[] axes;
  private boolean channelCounts;
  private boolean training;
  private boolean trainable;
  private boolean captured;
  private long step;

  PassPart(LayerReplica member) {
    this.member = member;
    this.config = member.config();
    this.device = member.replica().device();
    x = operand();
    y = operand();
    residual = operand();
    mask = operand();
    reluMask = operand();
    adjustScale = operand();
    adjustBias = operand();
    dy = operand();
    dx = operand();
    dresidual = operand();
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

  private Operand operand() {
    Operand operand = new Operand(member.replica());
    operands.add(operand);
    return operand;
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

  /** Whether its rows have a count for each channel. */
  boolean countsChannels() {
    return channelCounts;
  }

  // ------------------------------------------------------------------------------------------------------ forward

  /**
   * Takes the tensors of a forward.
   *
   * @param residualTensor null if nothing is added
   * @param maskTensor null if every element counts
   * @throws IllegalArgumentException if one does not fit
   */
  void bindForward(
      DeviceTensor xTensor,
      DeviceTensor yTensor,
      DeviceTensor residualTensor,
      DeviceTensor maskTensor,
      boolean wantsTraining,
      boolean isTrainable) {
    trainable = isTrainable;
    training = wantsTraining && trainable;
    member.checkTensor(xTensor, "x");
    if (layout == null || !layout.isOf(xTensor)) {
      axes = config.input().axesOf(xTensor, "x");
      layout = new Layout(xTensor.shape(), xTensor.strides(), axes);
    }
    checkValues(xTensor, yTensor, residualTensor);
    bindValues(xTensor, yTensor, residualTensor);
    bindMask(maskTensor);
    bindAdjustment();
  }

  /**
   * Looks at the tensors of a forward that is made again, and changes nothing: the pass is open.
   *
   * @throws IllegalArgumentException if one does not fit
   */
  void checkRecompute(DeviceTensor xTensor, DeviceTensor yTensor, DeviceTensor residualTensor) {
    member.checkTensor(xTensor, "x");
    if (!layout.isOf(xTensor)) {
      throw new IllegalArgumentException(
          "x must have shape %s and strides %s, as in the pass's forward: %s"
              .formatted(
                  Arrays.toString(layout.shape()), Arrays.toString(layout.strides()), xTensor));
    }
    if ((residualTensor != null) != residual.isBound()) {
      throw new IllegalArgumentException(
          residualTensor == null
              ? "residual is missing: the pass's forward had one"
              : "residual is given, but the pass's forward had none");
    }
    checkValues(xTensor, yTensor, residualTensor);
  }

  private void checkValues(
      DeviceTensor xTensor, DeviceTensor yTensor, DeviceTensor residualTensor) {
    Operand.requireReadable(xTensor, "x", layout);
    checkSame(yTensor, "y");
    Operand.requireWritable(yTensor, "y", layout);
    if (residualTensor != null) {
      checkSame(residualTensor, "residual");
      Operand.requireReadable(residualTensor, "residual", layout);
    }
  }

  /** Takes what was checked, in a forward or for one that is made again. */
  void bindValues(DeviceTensor xTensor, DeviceTensor yTensor, DeviceTensor residualTensor) {
    x.bind(xTensor, layout);
    y.bind(yTensor, layout);
    residual.bindNone();
    reluMask.bindNone();
    if (residualTensor != null) {
      residual.bind(residualTensor, layout);
      if (config.relu()) {
        reluMask.bindMemory(layout, Byte.BYTES);
      }
    }
  }

  private void bindMask(DeviceTensor tensor) {
    mask.bindNone();
    channelCounts = false;
    if (tensor == null || !training) {
      return;
    }
    member.replica().requireHere(tensor, "mask");
    long[] shape = layout.shape();
    if (tensor.dtype() != DType.BOOL || !tensor.hasShape(Arrays.copyOf(shape, shape.length - 1))) {
      throw new IllegalArgumentException(
          "mask must be bool%s, the shape of x without its last dimension, not %s"
              .formatted(Arrays.toString(Arrays.copyOf(shape, shape.length - 1)), tensor));
    }
    boolean ofLast = axes.length == 1 && axes[0] == shape.length - 1;
    channelCounts = !ofLast;
    if (ofLast && layout.isRowMajor() && layout.inner() == 1 && tensor.isRowMajor()) {
      mask.bindAlone(tensor);
      setMask(1, 0, 0);
    } else {
      mask.bindBroadcast(tensor.withLastDimension(), "mask", layout);
      setMask(layout.channels() * layout.inner(), layout.inner(), 1);
    }
  }

  /** Has its row a count for each channel, because another replica's has. */
  void countChannels() {
    channelCounts = true;
  }

  private void setMask(long outer, long channel, long inner) {
    stats.mask_outer_stride(outer).mask_channel_stride(channel).mask_inner_stride(inner);
    reduce.mask_outer_stride(outer).mask_channel_stride(channel).mask_inner_stride(inner);
    input.mask_outer_stride(outer).mask_channel_stride(channel).mask_inner_stride(inner);
  }

  private void bindAdjustment() {
    adjustScale.bindNone();
    adjustBias.bindNone();
    if (config.adjustment() == null || !training) {
      return;
    }
    Adjustment.Factors factors = config.adjustment().of(member.replica(), layout.shape().clone());
    if (factors == null || factors.scale() == null || factors.bias() == null) {
      throw new IllegalArgumentException(
          "the adjustment must return a scale and a bias, not " + factors);
    }
    bindFactor(adjustScale, factors.scale(), "the adjustment's scale");
    bindFactor(adjustBias, factors.bias(), "the adjustment's bias");
  }

  private void bindFactor(Operand factor, DeviceTensor tensor, String name) {
    member.replica().requireHere(tensor, name);
    if (tensor.dtype() != config.dtype().ofParameters()) {
      throw new IllegalArgumentException(
          "%s must be %s, not %s".formatted(name, config.dtype().ofParameters(), tensor.dtype()));
    }
    factor.bindBroadcast(tensor, name, layout);
  }

  private void checkSame(DeviceTensor tensor, String name) {
    member.checkTensor(tensor, name);
    if (!tensor.hasShape(layout.shape())) {
      throw new IllegalArgumentException(
          "%s has shape %s, x has %s"
              .formatted(name, Arrays.toString(tensor.shape()), Arrays.toString(layout.shape())));
    }
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
      operands.forEach(Operand::keepForGraph);
    }
  }

  /** Makes sure of the memory for what is bound. May wait for the device and allocate. */
  void reserve() {
    operands.forEach(Operand::reserve);
  }

  /** Begins the step of a forward that is bound. */
  void startForward() {
    reserve();
    x.load();
    residual.load();
    mask.load();
    adjustScale.load();
    adjustBias.load();
    normalize.statistics(training ? CpuKernels.SYNCBN_BATCH : CpuKernels.SYNCBN_MOVING);
    if (training) {
      step = member.nextStep();
      double signature = member.signature(step, false);
      rows.length(forwardRow(channelCounts));
      stats
          .outer(layout.outer())
          .inner(layout.inner())
          .signature(signature)
          .x(x.address())
          .mask(mask.address())
          .channel_counts(flag(channelCounts));
      normalize.signature(signature).channel_counts(flag(channelCounts));
    }
  }

  void stats() {
    device.stats(stats);
  }

  /**
   * Says that its row comes to an exchange. A graph's replays say nothing: that they are the same
   * on all replicas is the caller's.
   */
  void announce(boolean backward) {
    if (!captured) {
      int type = config.dtype().code() | (channelCounts && !backward ? Call.COUNTED : 0);
      long what = (long) member.signature(step, backward);
      Replica replica = member.replica();
      replica.group().calls().announce(replica.rank(), what, config.channels(), type);
    }
  }

  /** The statistics of the pass's forward take the place of others. */
  void startRecompute() {
    reserve();
    x.load();
    residual.load();
    normalize.statistics(CpuKernels.SYNCBN_SAVED);
  }

  void normalize() {
    device.normalize(
        normalize
            .outer(layout.outer())
            .inner(layout.inner())
            .x(x.address())
            .y(y.address())
            .residual(residual.address())
            .relu_mask(reluMask.address())
            .adjust_scale(adjustScale.address())
            .adjust_bias(adjustBias.address()));
    y.store();
  }

  // ----------------------------------------------------------------------------------------------------- backward

  /**
   * Takes the tensors of a backward.
   *
   * @param dresidualTensor null unless the forward had a residual
   * @throws IllegalArgumentException if one does not fit
   */
  void bindBackward(DeviceTensor dyTensor, DeviceTensor dxTensor, DeviceTensor dresidualTensor) {
    x.requireOpen();
    mask.requireOpen();
    checkSame(dyTensor, "dy");
    checkSame(dxTensor, "dx");
    Operand.requireReadable(dyTensor, "dy", layout);
    Operand.requireWritable(dxTensor, "dx", layout);
    dy.bind(dyTensor, layout);
    dx.bind(dxTensor, layout);
    dresidual.bindNone();
    if ((dresidualTensor != null) != residual.isBound()) {
      throw new IllegalArgumentException(
          dresidualTensor == null
              ? "dresidual is missing: the forward had a residual"
              : "dresidual is given, but the forward had no residual");
    }
    if (dresidualTensor != null) {
      checkSame(dresidualTensor, "dresidual");
      // It is written before x is read for the last time, and read while dx is written.
      if (dresidualTensor.elements() > 0
          && (dresidualTensor.address() == dxTensor.address()
              || dresidualTensor.address() == x.address())) {
        throw new IllegalArgumentException(
            "dresidual is the same memory as dx or x: " + dresidualTensor);
      }
      Operand.requireWritable(dresidualTensor, "dresidual", layout);
      dresidual.bind(dresidualTensor, layout);
    }
  }

  /** Begins the step of a backward that is bound. */
  void startBackward() {
    reserve();
    dy.load();
    rows.length(backwardRow());
    double signature = member.signature(step, true);
    reduce
        .outer(layout.outer())
        .inner(layout.inner())
        .signature(signature)
        .x(x.address())
        .dy(dy.address())
        .rows(training ? rowsAddress : 0)
        .gamma_grad(trainable ? member.gradientAddress("gamma") : 0)
        .beta_grad(trainable ? member.gradientAddress("beta") : 0)
        .mask(mask.address())
        .relu_mask(reluMask.address())
        .dresidual(dresidual.address())
        .adjust_scale(adjustScale.address())
        .adjust_bias(adjustBias.address());
    // Behind a residual, what came back through the ReLU is in dresidual.
    input
        .outer(layout.outer())
        .inner(layout.inner())
        .training(flag(training))
        .signature(signature)
        .x(x.address())
        .dy(dresidual.isBound() ? dresidual.address() : dy.address())
        .dx(dx.address())
        .mask(mask.address())
        .adjust_scale(adjustScale.address())
        .adjust_bias(adjustBias.address())
        .relu(flag(config.relu() && !residual.isBound()));
  }

  void backwardReduce() {
    device.backwardReduce(reduce);
    dresidual.store();
  }

  void backwardInput() {
    device.backwardInput(input);
    dx.store();
  }

  void release() {
    List<Runnable> releases = new ArrayList<>();
    operands.forEach(operand -> releases.add(operand::release));
    releases.add(() -> member.replica().free(savedAddress));
    releases.add(() -> member.replica().free(rowsAddress));
    Cleanup.runAll(releases);
  }
}
