package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceMemoryException;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import org.bytedeco.javacpp.Pointer;

/**
 * One member of a {@link ReplicaGroup}: a rank on a device, with a stream of its own or one of the
 * caller's. Used by one thread at a time. Its tensors live no longer than the group.
 */
public final class Replica {
  private final ReplicaGroup group;
  private final int rank;
  private final Device device;
  private final Set<DeviceTensor> owned = new LinkedHashSet<>();

  Replica(ReplicaGroup group, int rank, Device device) {
    this.group = group;
    this.rank = rank;
    this.device = device;
  }

  public ReplicaGroup group() {
    return group;
  }

  /** 0 to the group's size - 1. */
  public int rank() {
    return rank;
  }

  Device device() {
    return device;
  }

  /** Its device, as in {@code cpu:0} or {@code gpu:1}. */
  public String deviceId() {
    return device.id();
  }

  /**
   * What its device is, for people: the model of a GPU, the instruction sets of the CPU kernels.
   */
  public String deviceDescription() {
    return device.description();
  }

  /**
   * The stream that this replica's work is enqueued on, a {@code cudaStream_t}: at first one of its
   * own, which does not wait for the legacy default stream. 0 on the CPU, which has none.
   */
  public long stream() {
    return device.stream();
  }

  /**
   * Enqueues from now on on a stream of the caller's: steps, collectives and copies then come in
   * order with the caller's own kernels there, and can be captured into a graph (see {@link
   * SyncBatchNormalization}). What this replica has enqueued before comes first, by an event: the
   * host waits for nothing. Costs next to nothing if it is the stream already.
   *
   * @param stream a {@code cudaStream_t} of this replica's GPU: the number, as JavaCPP's {@code
   *     CUstream_st.address()} says it; 0 is the legacy default stream. The caller keeps it until
   *     the replica has left it, by {@link #useOwnStream} or by closing the group.
   * @throws IllegalArgumentException if it is a stream of another GPU, and on the CPU
   * @throws IllegalStateException while it, or the stream until now, is captured into a graph
   */
  public void useStream(long stream) {
    group.calls().requireOpen();
    if (stream != device.stream()) {
      group.calls().call(() -> device.useStream(stream));
    }
  }

  /** Goes back to the replica's own stream, as {@link #useStream}. */
  public void useOwnStream() {
    group.calls().call(device::useOwnStream);
  }

  /**
   * A row-major tensor that owns its memory; the contents are undefined.
   *
   * @throws IllegalArgumentException for a negative dimension or a size beyond 2^63 - 1 bytes
   * @throws DeviceMemoryException if the device has not that much memory
   * @throws IllegalStateException while the replica's stream is captured into a graph
   */
  public DeviceTensor allocate(DType dtype, long... shape) {
    Objects.requireNonNull(dtype, "dtype");
    long bytes = Shapes.elements(shape, dtype) * dtype.bytes();
    group.calls().requireOpen();
    long address = reserve(bytes);
    DeviceTensor tensor =
        new DeviceTensor(this, address, dtype, shape, Shapes.rowMajorStrides(shape), true, null);
    synchronized (owned) {
      owned.add(tensor);
    }
    return tensor;
  }

  /**
   * A row-major tensor over memory of this replica's device that the caller owns and keeps until
   * the steps that use it are over.
   *
   * @param address of the first element, aligned to the element
   */
  public DeviceTensor wrap(long address, DType dtype, long... shape) {
    return wrapStrided(address, dtype, shape, Shapes.rowMajorStrides(shape));
  }

  /**
   * As {@link #wrap(long, DType, long...)}, at a JavaCPP pointer's position. The tensor keeps the
   * pointer from being collected, but not from being closed.
   *
   * @throws IllegalArgumentException also if the pointer's limit says that it is too short
   */
  public DeviceTensor wrap(Pointer pointer, DType dtype, long... shape) {
    long needed = Shapes.elements(shape, dtype) * dtype.bytes();
    long has = (pointer.limit() - pointer.position()) * pointer.sizeof();
    if (pointer.limit() > 0 && has < needed) {
      throw new IllegalArgumentException(
          "the pointer has %d bytes, a %s tensor of shape %s needs %d"
              .formatted(has, dtype, Arrays.toString(shape), needed));
    }
    long address = pointer.address() + pointer.position() * pointer.sizeof();
    return wrap(address, dtype, shape, Shapes.rowMajorStrides(shape), pointer);
  }

  /**
   * As {@link #wrap(long, DType, long...)}, with strides in elements.
   *
   * @throws IllegalArgumentException for a negative dimension or stride, and an address that is 0,
   *     not aligned to the element, or not in memory of this replica's GPU
   */
  public DeviceTensor wrapStrided(long address, DType dtype, long[] shape, long[] strides) {
    return wrap(address, dtype, shape, strides, null);
  }

  private DeviceTensor wrap(
      long address, DType dtype, long[] shape, long[] strides, Object source) {
    Objects.requireNonNull(dtype, "dtype");
    long elements = Shapes.elements(shape, dtype);
    if (strides.length != shape.length) {
      throw new IllegalArgumentException(
          strides.length + " strides for " + shape.length + " dimensions");
    }
    if (Arrays.stream(strides).anyMatch(stride -> stride < 0)) {
      throw new IllegalArgumentException("negative stride in " + Arrays.toString(strides));
    }
    if (elements > 0 && address == 0) {
      throw new IllegalArgumentException(
          "address 0 for a tensor of shape " + Arrays.toString(shape));
    }
    if (address % dtype.bytes() != 0) {
      throw new IllegalArgumentException(
          "address 0x%x is not aligned to a %s element (%d bytes)"
              .formatted(address, dtype, dtype.bytes()));
    }
    group.calls().requireOpen();
    if (elements > 0) {
      device.requireReachable(address);
    }
    return new DeviceTensor(this, address, dtype, shape, strides, false, source);
  }

  /**
   * Waits until everything enqueued on this replica has run.
   *
   * @throws io.github.syncbn4j.device.CollectiveException if that takes longer than the group's
   *     timeout, or the group failed
   * @throws IllegalStateException while its stream is captured into a graph
   */
  public void synchronize() {
    group.calls().call(this::awaitIdle);
    group.check();
  }

  /**
   * Sums a tensor over the replicas, in place: every replica's thread has to call it, with a tensor
   * of the same type, shape and strides.
   *
   * @see ReplicaGroup#allReduce
   */
  public void allReduce(DeviceTensor tensor) {
    group.collectives().run(this, part(tensor, Collective.SUM));
  }

  /**
   * Copies the tensor of one replica to those of all others: every replica's thread has to call it.
   *
   * @see ReplicaGroup#broadcast
   */
  public void broadcast(DeviceTensor tensor, int root) {
    group.requireRank(root);
    group.collectives().run(this, part(tensor, root));
  }

  /** Its part in a collective over this tensor. */
  Collective part(DeviceTensor tensor, int root) {
    requireHere(tensor, "the tensor of rank " + rank);
    if (root == Collective.SUM && !tensor.dtype().isFloatingPoint()) {
      throw new IllegalArgumentException("a " + tensor.dtype() + " tensor cannot be summed");
    }
    if (!Shapes.isDense(tensor.shape(), tensor.strides())) {
      throw new IllegalArgumentException("the tensor must lie without gaps: " + tensor);
    }
    return new Collective(
        rank,
        tensor.address(),
        tensor.elements(),
        tensor.dtype().code(),
        tensor.dtype().bytes(),
        root);
  }

  /**
   * @throws IllegalArgumentException unless the tensor is of this group and on this replica's
   *     device
   * @throws IllegalStateException if it is closed
   */
  void requireHere(DeviceTensor tensor, String name) {
    Objects.requireNonNull(tensor, name);
    tensor.address();
    if (!tensor.device().memorySpace().equals(device.memorySpace())) {
      throw new IllegalArgumentException(
          "%s is on %s, the replica is %s".formatted(name, tensor.device().id(), this));
    }
    // Another group's stream is not ordered with this one's.
    if (tensor.replica().group() != group) {
      throw new IllegalArgumentException(
          name + " is of another group: wrap its memory for " + this + " once it is ready");
    }
  }

  /** Whether what it enqueues now is captured into a graph instead of run. */
  boolean isCapturing() {
    try {
      return device.isCapturing();
    } catch (DeviceException e) {
      throw group.health().failed(e);
    }
  }

  /**
   * Before memory is given back, which no capture can contain.
   *
   * @throws IllegalStateException while the stream is captured into a graph
   */
  void requireNoCapture() {
    boolean capturing = false;
    try {
      capturing = device.isCapturing();
    } catch (DeviceException e) {
      group.health().fail(e);
    }
    if (capturing) {
      throw new IllegalStateException(
          "nothing of %s can be closed while its stream is captured into a graph".formatted(this));
    }
  }

  /** Whether what is enqueued has ended, well or not. */
  boolean isOver() {
    try {
      return device.isIdle();
    } catch (DeviceException e) {
      return true; // a device that reports an error runs nothing any more
    }
  }

  /**
   * Memory of the device, which {@link #free} gives back.
   *
   * @throws DeviceMemoryException if it has not that much, which fails nothing, as anything else
   *     that it says does
   */
  long reserve(long bytes) {
    try {
      return device.allocate(bytes);
    } catch (DeviceMemoryException e) {
      throw e;
    } catch (DeviceException e) {
      throw group.health().failed(e);
    }
  }

  /**
   * Gives memory back after everything that is enqueued; 0 is allowed. Past the group's timeout the
   * group fails and is aborted first.
   */
  void free(long address) {
    if (address != 0) {
      group.waits().settle(this);
      device.free(address);
    }
  }

  void awaitIdle() {
    group.waits().awaitIdle(this);
  }

  /** Copies to the device, after everything that is enqueued. */
  void write(long address, Pointer host, long bytes) {
    group
        .calls()
        .call(
            () -> {
              awaitIdle();
              device.copyFromHost(address, host, bytes);
            });
  }

  /** Copies to the host, after everything that is enqueued; also on a group that has failed. */
  void read(Pointer host, long address, long bytes) {
    group
        .calls()
        .callEvenIfFailed(
            () -> {
              awaitIdle();
              device.copyToHost(host, address, bytes);
            });
  }

  void forget(DeviceTensor tensor) {
    synchronized (owned) {
      owned.remove(tensor);
    }
  }

  void closeTensors() {
    List<DeviceTensor> tensors;
    synchronized (owned) {
      tensors = List.copyOf(owned);
    }
    Cleanup.runAll(tensors.stream().<Runnable>map(tensor -> tensor::close).toList());
  }

  @Override
  public String toString() {
    return "rank " + rank + " on " + device.id();
  }
}
