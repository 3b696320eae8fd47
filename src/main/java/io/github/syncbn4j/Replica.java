package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import org.bytedeco.javacpp.Pointer;

/**
 * One member of a {@link ReplicaGroup}: a rank on a device, with a stream of its own. Used by one
 * thread at a time. Its tensors live no longer than the group.
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

  public Device device() {
    return device;
  }

  /**
   * A row-major tensor that owns its memory; the contents are undefined.
   *
   * @throws IllegalArgumentException for a negative dimension or a size beyond 2^63 - 1 bytes
   * @throws io.github.syncbn4j.device.DeviceException if the device has not that much memory
   */
  public DeviceTensor allocate(DType dtype, long... shape) {
    Objects.requireNonNull(dtype, "dtype");
    long bytes = Shapes.elements(shape, dtype) * dtype.bytes();
    group.requireOpen();
    long address = device.allocate(bytes);
    DeviceTensor tensor =
        new DeviceTensor(this, address, dtype, shape, Shapes.rowMajorStrides(shape), true);
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

  /** As {@link #wrap(long, DType, long...)}, at a JavaCPP pointer's position. */
  public DeviceTensor wrap(Pointer pointer, DType dtype, long... shape) {
    long position = Math.multiplyExact(pointer.position(), pointer.sizeof());
    return wrap(pointer.address() + position, dtype, shape);
  }

  /**
   * As {@link #wrap(long, DType, long...)}, with strides in elements.
   *
   * @throws IllegalArgumentException for a negative dimension or stride, an address that is 0 or
   *     not aligned to the element
   */
  public DeviceTensor wrapStrided(long address, DType dtype, long[] shape, long[] strides) {
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
    group.requireOpen();
    return new DeviceTensor(this, address, dtype, shape, strides, false);
  }

  /**
   * Waits until everything enqueued on this replica has run.
   *
   * @throws io.github.syncbn4j.device.CollectiveException if that takes longer than the group's
   *     timeout, or the group failed
   */
  public void synchronize() {
    group.call(this::awaitIdle);
    group.check();
  }

  void awaitIdle() {
    group.awaitIdle(this);
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
