package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.natives.CpuKernels;
import io.github.syncbn4j.device.natives.syncbn_copy_args;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * One tensor of a pass as the kernels take it: where it is, or in memory of the pass, to or from
 * which it is copied. That memory grows with the largest tensor and is kept.
 */
final class Operand {
  private static final int MOST_PIECES = CpuKernels.SYNCBN_MAX_RANK;

  private final Replica replica;
  private final Device device;
  private final syncbn_copy_args copy = new syncbn_copy_args().retainReference();
  private DeviceTensor tensor;
  private Layout layout;
  private int elementBytes;
  private boolean broadcast;
  private long memory;
  private long capacity;

  /** Whether a graph names the memory. */
  private boolean inGraph;

  /** Memory that has become too small, and that graphs name. */
  private final List<Long> outgrown = new ArrayList<>();

  Operand(Replica replica) {
    this.replica = replica;
    this.device = replica.device();
    copy.struct_size(copy.sizeof());
  }

  /**
   * @throws IllegalArgumentException if kernels cannot read a tensor of the layout's shape: it
   *     would have to be copied and lies in too many pieces
   */
  static void requireReadable(DeviceTensor tensor, String name, Layout layout) {
    if (!layout.isInPlace(tensor)) {
      requireCopyable(tensor, name, layout);
    }
  }

  /**
   * @throws IllegalArgumentException as {@link #requireReadable}, and if elements share memory
   */
  static void requireWritable(DeviceTensor tensor, String name, Layout layout) {
    requireReadable(tensor, name, layout);
    if (!layout.isInPlace(tensor) && Shapes.mayOverlap(tensor.shape(), tensor.strides())) {
      throw new IllegalArgumentException(
          "%s cannot be written: elements share memory: %s".formatted(name, tensor));
    }
  }

  private static void requireCopyable(DeviceTensor tensor, String name, Layout layout) {
    if (Arrays.stream(layout.shape()).filter(d -> d != 1).count() > MOST_PIECES) {
      throw new IllegalArgumentException(
          "%s of rank %d lies in memory in too many pieces (%d dimensions at most): %s"
              .formatted(name, tensor.rank(), MOST_PIECES, tensor));
    }
  }

  /** A tensor of the layout's shape. */
  void bind(DeviceTensor tensor, Layout layout) {
    set(tensor, layout, tensor.dtype().bytes(), false);
  }

  /**
   * A tensor that is repeated along the layout's dimensions, as NumPy does: always copied.
   *
   * @throws IllegalArgumentException if its shape does not fit
   */
  void bindBroadcast(DeviceTensor tensor, String name, Layout layout) {
    long[] shape = layout.shape();
    int missing = shape.length - tensor.rank();
    boolean fits = missing >= 0;
    for (int i = 0; fits && i < tensor.rank(); i++) {
      fits = tensor.dimension(i) == 1 || tensor.dimension(i) == shape[i + missing];
    }
    if (!fits) {
      throw new IllegalArgumentException(
          "%s has shape %s, which does not broadcast to that of x, %s"
              .formatted(name, Arrays.toString(tensor.shape()), Arrays.toString(shape)));
    }
    requireCopyable(tensor, name, layout);
    set(tensor, layout, tensor.dtype().bytes(), true);
  }

  /** A tensor of a shape of its own, which the kernels take where it is. */
  void bindAlone(DeviceTensor tensor) {
    set(tensor, null, tensor.dtype().bytes(), false);
  }

  /** Memory of the pass alone, an element of this size for each of the layout's. */
  void bindMemory(Layout layout, int elementBytes) {
    set(null, layout, elementBytes, false);
  }

  void bindNone() {
    set(null, null, 0, false);
  }

  private void set(DeviceTensor tensor, Layout layout, int elementBytes, boolean broadcast) {
    this.tensor = tensor;
    this.layout = layout;
    this.elementBytes = elementBytes;
    this.broadcast = broadcast;
  }

  boolean isBound() {
    return layout != null || tensor != null;
  }

  /**
   * @throws IllegalStateException if the tensor is closed and its memory is still what kernels read
   */
  void requireOpen() {
    if (isBound() && isInPlace()) {
      tensor.address();
    }
  }

  private boolean isInPlace() {
    return tensor != null && !broadcast && (layout == null || layout.isInPlace(tensor));
  }

  /**
   * Makes sure of the memory. May wait for the device and allocate, where a tensor is the largest
   * so far.
   */
  void reserve() {
    long bytes = bytes();
    if (bytes > capacity) {
      if (inGraph) {
        outgrown.add(memory);
        inGraph = false;
        capacity = 0;
      } else {
        free();
      }
      memory = replica.reserve(bytes);
      capacity = bytes;
    }
  }

  /**
   * Keeps the memory until {@link #release}: kernels that are captured into a graph name it.
   *
   * @throws IllegalStateException if there would be more to allocate
   */
  void keepForGraph() {
    long bytes = bytes();
    if (bytes > capacity) {
      throw new IllegalStateException(
          "%s has no memory of %d bytes for a step that is captured into a graph: take such a step before"
              .formatted(replica, bytes));
    }
    inGraph |= bytes > 0;
  }

  /** Of memory of the pass that is needed; 0 if none is. */
  private long bytes() {
    return !isBound() || isInPlace() ? 0 : Math.multiplyExact(elements(), (long) elementBytes);
  }

  private long elements() {
    return layout.outer() * layout.channels() * layout.inner();
  }

  /** What the kernels are given; 0 if nothing is bound. */
  long address() {
    if (!isBound()) {
      return 0;
    }
    return isInPlace() ? tensor.address() : memory;
  }

  /** Enqueues the copy into the pass's memory, if there is one to make. */
  void load() {
    if (tensor != null && !isInPlace()) {
      copy(tensor.address(), broadcastStrides(), memory, layout.kernelStrides());
    }
  }

  /** Enqueues the copy out of the pass's memory, if there is one to make. */
  void store() {
    if (tensor != null && !isInPlace()) {
      copy(memory, layout.kernelStrides(), tensor.address(), tensor.strides());
    }
  }

  private long[] broadcastStrides() {
    int missing = layout.shape().length - tensor.rank();
    long[] strides = new long[layout.shape().length];
    for (int i = missing; i < strides.length; i++) {
      strides[i] =
          tensor.dimension(i - missing) == layout.shape()[i] ? tensor.stride(i - missing) : 0;
    }
    return strides;
  }

  private void copy(long from, long[] fromStrides, long to, long[] toStrides) {
    long[] shape = layout.shape();
    if (Shapes.isEmpty(shape)) {
      return;
    }
    int[] order = Shapes.fastestFirst(shape, toStrides);
    int rank = 0;
    for (int at = order.length - 1; at >= 0; at--) {
      int i = order[at];
      // Two dimensions that are one in both tensors are copied as one.
      if (rank > 0
          && copy.destination_strides(rank - 1) == toStrides[i] * shape[i]
          && copy.source_strides(rank - 1) == fromStrides[i] * shape[i]) {
        rank--;
        copy.shape(rank, copy.shape(rank) * shape[i]);
      } else {
        copy.shape(rank, shape[i]);
      }
      copy.source_strides(rank, fromStrides[i]).destination_strides(rank, toStrides[i]);
      rank++;
    }
    device.copy(copy.element_size(elementBytes).rank(rank).source(from).destination(to));
  }

  /** Frees all memory, after the device has used it. */
  void release() {
    free();
    List<Runnable> releases = new ArrayList<>();
    outgrown.forEach(address -> releases.add(() -> replica.free(address)));
    outgrown.clear();
    Cleanup.runAll(releases);
  }

  private void free() {
    if (capacity > 0) {
      long address = memory;
      memory = 0;
      capacity = 0;
      replica.free(address);
    }
  }
}
