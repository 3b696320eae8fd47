package io.github.syncbn4j;

import java.util.Arrays;

/**
 * Which tensors a layer takes: the axes that index its channels, their sizes, and the rank, where
 * it is fixed. The checks and their order are those of Keras' {@code build} and input
 * specification.
 */
final class InputSpec {
  /** Stands for a dimension of any size, as Keras' {@code None}. */
  static final long UNKNOWN = -1;

  private static final int ANY_RANK = -1;

  private final int[] axis;
  private final int rank;
  private final long[] sizes;

  private InputSpec(int[] axis, int rank, long[] sizes) {
    this.axis = axis;
    this.rank = rank;
    this.sizes = sizes;
  }

  /** One axis, of tensors of any rank that have it. */
  static InputSpec ofChannels(int axis, long channels) {
    return new InputSpec(new int[] {axis}, ANY_RANK, new long[] {channels});
  }

  /**
   * The axes of tensors of a shape, in which {@link #UNKNOWN} stands for any size.
   *
   * @throws IllegalArgumentException for rank 0, an axis that is not there or is named twice, and
   *     an axis of unknown size
   */
  static InputSpec ofShape(int[] axis, long[] shape) {
    for (long dimension : shape) {
      if (dimension < UNKNOWN) {
        throw new IllegalArgumentException(
            "negative dimension %d in shape %s".formatted(dimension, Arrays.toString(shape)));
      }
    }
    int[] resolved = resolve(axis, shape.length);
    long[] sizes = new long[resolved.length];
    for (int i = 0; i < sizes.length; i++) {
      sizes[i] = shape[resolved[i]];
      if (sizes[i] < 0) {
        throw new IllegalArgumentException(
            "the input has an undefined dimension: axis %d of shape %s"
                .formatted(resolved[i], Arrays.toString(shape)));
      }
    }
    return new InputSpec(resolved, shape.length, sizes);
  }

  private static int[] resolve(int[] axis, int rank) {
    if (rank == 0) {
      throw new IllegalArgumentException("the input must have rank 1 or more, not 0");
    }
    int[] resolved = new int[axis.length];
    for (int i = 0; i < axis.length; i++) {
      resolved[i] = axis[i] < 0 ? axis[i] + rank : axis[i];
      if (resolved[i] < 0 || resolved[i] >= rank) {
        throw new IllegalArgumentException(
            "axis %d is outside an input of rank %d (%d to %d)"
                .formatted(axis[i], rank, -rank, rank - 1));
      }
    }
    Arrays.sort(resolved);
    for (int i = 1; i < resolved.length; i++) {
      if (resolved[i] == resolved[i - 1]) {
        throw new IllegalArgumentException(
            "axis %s names dimension %d of an input of rank %d twice"
                .formatted(Arrays.toString(axis), resolved[i], rank));
      }
    }
    return resolved;
  }

  /**
   * The product of the axes' sizes.
   *
   * @throws IllegalArgumentException if that many float64 are beyond 2^63 - 1 bytes
   */
  long channels() {
    return Shapes.elements(sizes, DType.FLOAT64);
  }

  /**
   * The shape of the layer's variables: {@code [channels]} for one axis; for several, that of the
   * input with 1 for every other dimension.
   */
  long[] parameterShape() {
    if (axis.length == 1) {
      return sizes.clone();
    }
    long[] shape = new long[rank];
    Arrays.fill(shape, 1);
    for (int i = 0; i < axis.length; i++) {
      shape[axis[i]] = sizes[i];
    }
    return shape;
  }

  /** Whether it was made for a shape: the axes are then resolved. */
  boolean knowsRank() {
    return rank != ANY_RANK;
  }

  /** The axes as they are known: resolved, unless the rank is open. */
  int[] axis() {
    return axis.clone();
  }

  /**
   * The axes of this tensor, ascending.
   *
   * @throws IllegalArgumentException if the layer does not take it
   */
  int[] axesOf(DeviceTensor tensor, String name) {
    if (knowsRank() && tensor.rank() != rank) {
      throw new IllegalArgumentException(
          "%s must have rank %d, not %d: %s".formatted(name, rank, tensor.rank(), tensor));
    }
    int[] axes = resolve(axis, tensor.rank());
    for (int i = 0; i < axes.length; i++) {
      if (tensor.dimension(axes[i]) != sizes[i]) {
        throw new IllegalArgumentException(
            "%s has %d channels in dimension %d, the layer has %d: %s"
                .formatted(name, tensor.dimension(axes[i]), axes[i], sizes[i], tensor));
      }
    }
    return axes;
  }
}
