package io.github.syncbn4j;

import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * How the kernels see tensors of one shape and strides: as {@code [outer, channels, inner]} in
 * place, where the memory is dense and the channels lie together in it; else packed, channels last,
 * into memory of the pass.
 */
final class Layout {
  private static final int OUTER = 0;
  private static final int CHANNELS = 1;
  private static final int INNER = 2;

  private final long[] shape;
  private final long[] strides;
  private final long[] kernelStrides;
  private final long outer;
  private final long channels;
  private final long inner;

  /**
   * @param axes the dimensions that index channels, ascending
   */
  Layout(long[] shape, long[] strides, int[] axes) {
    this.shape = shape;
    this.strides = strides;
    int[] inMemory = Shapes.fastestFirst(shape, strides);
    long[] collapsed = Shapes.isDense(shape, strides) ? collapse(shape, inMemory, axes) : null;
    if (collapsed != null) {
      kernelStrides = strides;
    } else {
      int[] packed = channelsLast(shape.length, axes);
      kernelStrides = denseStrides(shape, packed);
      collapsed = collapse(shape, packed, axes);
    }
    outer = collapsed[OUTER];
    channels = collapsed[CHANNELS];
    inner = collapsed[INNER];
  }

  long outer() {
    return outer;
  }

  long channels() {
    return channels;
  }

  long inner() {
    return inner;
  }

  long[] shape() {
    return shape;
  }

  long[] strides() {
    return strides;
  }

  /** Whether the kernels see the dimensions in their own order. */
  boolean isRowMajor() {
    return Shapes.isRowMajor(shape, kernelStrides);
  }

  /** Strides, in elements, of a tensor as the kernels take it. */
  long[] kernelStrides() {
    return kernelStrides;
  }

  /** Whether this is the layout of such a tensor. */
  boolean isOf(DeviceTensor tensor) {
    return tensor.hasShape(shape) && tensor.hasStrides(strides);
  }

  /** Whether the kernels can take a tensor of this shape where it is. */
  boolean isInPlace(DeviceTensor tensor) {
    return Shapes.isEmpty(shape) || tensor.hasPlacesOf(kernelStrides);
  }

  /**
   * The three sizes, if dense dimensions in this order, the fastest first, are some, then all axes
   * in descending order, then some; else null.
   */
  private static long[] collapse(long[] shape, int[] order, int[] axes) {
    long[] sizes = {1, 1, 1};
    int part = INNER;
    int lastAxis = Integer.MAX_VALUE;
    for (int dimension : order) {
      if (Arrays.binarySearch(axes, dimension) >= 0) {
        if (part == OUTER || dimension > lastAxis) {
          return null;
        }
        part = CHANNELS;
        lastAxis = dimension;
      } else if (part == CHANNELS) {
        part = OUTER;
      }
      sizes[part] *= shape[dimension];
    }
    return sizes;
  }

  private static int[] channelsLast(int rank, int[] axes) {
    return IntStream.range(0, rank)
        .mapToObj(i -> rank - 1 - i)
        .sorted(Comparator.comparing(i -> Arrays.binarySearch(axes, i) < 0))
        .mapToInt(i -> i)
        .toArray();
  }

  private static long[] denseStrides(long[] shape, int[] order) {
    long[] strides = new long[shape.length];
    long stride = 1;
    for (int dimension : order) {
      strides[dimension] = stride;
      stride *= Math.max(1, shape[dimension]);
    }
    return strides;
  }
}
