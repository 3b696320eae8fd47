package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The tensors of one replica's part of a pass: whether they fit, how the kernels see them, and the
 * memory that it takes where they cannot be used as they lie. Binding them enqueues nothing.
 */
final class PassTensors {
  private final LayerReplica member;
  private final LayerConfig config;
  private final List<Operand> operands = new ArrayList<>();
  final Operand x;
  final Operand y;
  final Operand residual;
  final Operand mask;

  /** What forward's ReLU let through, where there is a residual. */
  final Operand reluMask;

  final Operand adjustScale;
  final Operand adjustBias;
  final Operand dy;
  final Operand dx;
  final Operand dresidual;

  private Layout layout;
  private int[] axes;
  private boolean channelCounts;
  private long maskOuterStride;
  private long maskChannelStride;
  private long maskInnerStride;

  PassTensors(LayerReplica member) {
    this.member = member;
    this.config = member.config();
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
  }

  private Operand operand() {
    Operand operand = new Operand(member.replica());
    operands.add(operand);
    return operand;
  }

  /** Of x; the other tensors have its shape. */
  Layout layout() {
    return layout;
  }

  /** Whether the rows have a count for each channel. */
  boolean countsChannels() {
    return channelCounts;
  }

  /** Has its row a count for each channel, because another replica's has. */
  void countChannels() {
    channelCounts = true;
  }

  /** Between the mask's elements, from one of x's {@code outer} to the next. */
  long maskOuterStride() {
    return maskOuterStride;
  }

  long maskChannelStride() {
    return maskChannelStride;
  }

  long maskInnerStride() {
    return maskInnerStride;
  }

  /**
   * Takes the tensors of a forward.
   *
   * @param residualTensor null if nothing is added
   * @param maskTensor null if every element counts
   * @param training whether it normalizes with its statistics
   * @throws IllegalArgumentException if one does not fit
   */
  void bindForward(
      DeviceTensor xTensor,
      DeviceTensor yTensor,
      DeviceTensor residualTensor,
      DeviceTensor maskTensor,
      boolean training) {
    member.checkTensor(xTensor, "x");
    if (layout == null || !layout.isOf(xTensor)) {
      axes = config.input().axesOf(xTensor, "x");
      layout = new Layout(xTensor.shape(), xTensor.strides(), axes);
    }
    checkValues(xTensor, yTensor, residualTensor);
    bindValues(xTensor, yTensor, residualTensor);
    bindMask(training ? maskTensor : null);
    bindAdjustment(training ? config.adjustment() : null);
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
    if (tensor == null) {
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

  private void setMask(long outer, long channel, long inner) {
    maskOuterStride = outer;
    maskChannelStride = channel;
    maskInnerStride = inner;
  }

  private void bindAdjustment(Adjustment adjustment) {
    adjustScale.bindNone();
    adjustBias.bindNone();
    if (adjustment == null) {
      return;
    }
    Adjustment.Factors factors = adjustment.of(member.replica(), layout.shape().clone());
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

  /** Makes sure of the memory for what is bound. May wait for the device and allocate. */
  void reserve() {
    operands.forEach(Operand::reserve);
  }

  /**
   * Keeps the memory for as long as the layer lives, since a graph will name it.
   *
   * @throws IllegalStateException if there would be memory to allocate
   */
  void keepForGraph() {
    operands.forEach(Operand::keepForGraph);
  }

  void release() {
    Cleanup.runAll(operands.stream().<Runnable>map(operand -> operand::release).toList());
  }
}
