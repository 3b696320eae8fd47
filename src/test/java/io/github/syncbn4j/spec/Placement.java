package io.github.syncbn4j.spec;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * A tensor somewhere in a row of device memory, with any strides. What lies between its elements is
 * filled, and must stay as it was.
 */
final class Placement {
  private static final int FILLING = 85;

  final DeviceTensor tensor;
  private final DeviceTensor memory;
  private final int[] offsets;

  private Placement(DeviceTensor tensor, DeviceTensor memory, int[] offsets) {
    this.tensor = tensor;
    this.memory = memory;
    this.offsets = offsets;
  }

  /** How tensors lie in memory. */
  interface Style {
    Placement place(Replica replica, DType dtype, long... shape);
  }

  static Placement rowMajor(Replica replica, DType dtype, long... shape) {
    return strided(replica, dtype, 0, lastFastest(shape.length), 1, shape);
  }

  /** The dimensions in any order, with gaps, away from an aligned address: as drawn. */
  static Style drawn(Random random) {
    return (replica, dtype, shape) -> {
      List<Integer> order = lastFastest(shape.length);
      if (random.nextBoolean()) {
        Collections.shuffle(order, random);
      }
      int gap = random.nextInt(3) == 0 ? 2 : 1;
      int start = random.nextInt(3) == 0 ? 1 : 0;
      return strided(replica, dtype, start, order, gap, shape);
    };
  }

  private static List<Integer> lastFastest(int rank) {
    return IntStream.range(0, rank)
        .mapToObj(i -> rank - 1 - i)
        .collect(Collectors.toCollection(ArrayList::new));
  }

  /**
   * @param order the dimensions, the fastest first
   * @param gap the second fastest dimension is this many times further apart than it need be
   */
  private static Placement strided(
      Replica replica, DType dtype, int start, List<Integer> order, int gap, long... shape) {
    long[] strides = new long[shape.length];
    long stride = 1;
    for (int k = 0; k < order.size(); k++) {
      stride *= k == 1 ? gap : 1;
      strides[order.get(k)] = stride;
      stride *= Math.max(1, shape[order.get(k)]);
    }
    int[] offsets = new int[Values.elements(shape)];
    int last = start;
    for (int i = 0; i < offsets.length; i++) {
      offsets[i] = start;
      int rest = i;
      for (int k = shape.length - 1; k >= 0; k--) {
        offsets[i] += (int) (rest % shape[k] * strides[k]);
        rest /= (int) shape[k];
      }
      last = Math.max(last, offsets[i]);
    }
    DeviceTensor memory = replica.allocate(dtype, last + 2);
    long address = memory.address() + (long) start * dtype.bytes();
    Placement placement =
        new Placement(replica.wrapStrided(address, dtype, shape, strides), memory, offsets);
    placement.fillAll();
    return placement;
  }

  private void fillAll() {
    if (tensor.dtype() == DType.BOOL) {
      byte[] bytes = new byte[(int) memory.elements()];
      Arrays.fill(bytes, (byte) FILLING);
      memory.copyFromHost(ByteBuffer.wrap(bytes));
    } else {
      double[] all = new double[(int) memory.elements()];
      Arrays.fill(all, FILLING);
      memory.copyFromHost(all);
    }
  }

  /** Row-major numbers; of a mask, 0 and others. */
  Placement write(double... values) {
    if (tensor.dtype() == DType.BOOL) {
      byte[] all = new byte[(int) memory.elements()];
      Arrays.fill(all, (byte) FILLING);
      for (int i = 0; i < offsets.length; i++) {
        all[offsets[i]] = (byte) values[i];
      }
      memory.copyFromHost(ByteBuffer.wrap(all));
    } else {
      double[] all = memory.copyToHostAsDoubles();
      for (int i = 0; i < offsets.length; i++) {
        all[offsets[i]] = values[i];
      }
      memory.copyFromHost(all);
    }
    return this;
  }

  /**
   * Row-major numbers.
   *
   * @throws AssertionError if something was written between the elements
   */
  double[] read() {
    double[] all = memory.copyToHostAsDoubles();
    double[] values = new double[offsets.length];
    boolean[] own = new boolean[all.length];
    for (int i = 0; i < offsets.length; i++) {
      values[i] = all[offsets[i]];
      own[offsets[i]] = true;
    }
    for (int at = 0; at < all.length; at++) {
      if (!own[at] && all[at] != FILLING) {
        throw new AssertionError(
            "%s was written beside %s: element %d is %s".formatted(memory, tensor, at, all[at]));
      }
    }
    return values;
  }
}
