package io.github.syncbn4j;

import io.github.syncbn4j.device.Device;
import java.nio.ByteBuffer;
import java.util.Arrays;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.ShortPointer;

/**
 * A tensor in a replica's device memory: an address, a dtype, a shape and strides. It owns its
 * memory ({@link Replica#allocate}) or borrows it ({@link Replica#wrap}); closing frees only what
 * is owned.
 *
 * <p>Copies are ordered after everything enqueued on the replica before, and wait for it within the
 * group's timeout. Reading or writing the memory in another way while a step is under way is the
 * caller's to avoid. Any thread may close a tensor once the steps that use it are over.
 */
public final class DeviceTensor implements AutoCloseable {
  private final Replica replica;
  private final long address;
  private final DType dtype;
  private final long[] shape;
  private final long[] strides;
  private final long elements;
  private final boolean owned;

  /** Keeps borrowed memory from being collected, or is the tensor that this one is a view of. */
  private final Object source;

  private boolean closed;

  DeviceTensor(
      Replica replica,
      long address,
      DType dtype,
      long[] shape,
      long[] strides,
      boolean owned,
      Object source) {
    this.replica = replica;
    this.address = address;
    this.dtype = dtype;
    this.shape = shape.clone();
    this.strides = strides.clone();
    this.elements = Shapes.elements(shape, dtype);
    this.owned = owned;
    this.source = source;
  }

  /** The same memory, without owning it; usable as long as this tensor is. */
  DeviceTensor view() {
    return new DeviceTensor(replica, address, dtype, shape, strides, false, this);
  }

  /** A view with one more dimension, of size 1, at the end. */
  DeviceTensor withLastDimension() {
    long[] longer = Arrays.copyOf(shape, shape.length + 1);
    longer[shape.length] = 1;
    long[] longerStrides = Arrays.copyOf(strides, strides.length + 1);
    longerStrides[strides.length] = 1;
    return new DeviceTensor(replica, address, dtype, longer, longerStrides, false, this);
  }

  /** The replica it was allocated or wrapped for. */
  public Replica replica() {
    return replica;
  }

  Device device() {
    return replica.device();
  }

  /**
   * Device address of the first element; 0 only for a tensor without elements.
   *
   * @throws IllegalStateException if closed
   */
  public long address() {
    requireOpen();
    return address;
  }

  public DType dtype() {
    return dtype;
  }

  /** A copy of the dimensions. */
  public long[] shape() {
    return shape.clone();
  }

  /** A copy of the strides, in elements. */
  public long[] strides() {
    return strides.clone();
  }

  public int rank() {
    return shape.length;
  }

  /** Dimension {@code axis}, without copying the shape. */
  public long dimension(int axis) {
    return shape[axis];
  }

  public long elements() {
    return elements;
  }

  public long bytes() {
    return elements * dtype.bytes();
  }

  /** Whether the elements lie without gaps, the last dimension fastest. */
  public boolean isRowMajor() {
    return Shapes.isRowMajor(shape, strides);
  }

  boolean hasShape(long[] other) {
    return Arrays.equals(shape, other);
  }

  boolean hasStrides(long[] other) {
    return Arrays.equals(strides, other);
  }

  /** Whether every element is where such strides would have it. */
  boolean hasPlacesOf(long[] other) {
    return Shapes.areSameStrides(shape, strides, other);
  }

  /** Stride of dimension {@code axis} in elements, without copying the strides. */
  long stride(int axis) {
    return strides[axis];
  }

  /**
   * Copies {@code values} to the device, rounded once, to nearest even, where the tensor is
   * narrower.
   *
   * @throws IllegalArgumentException if the tensor holds no floating-point numbers or has another
   *     number of elements
   */
  public void copyFromHost(float... values) {
    requireNumbers(values.length);
    if (dtype != DType.FLOAT32) {
      copyFromHost(HostArrays.widened(values));
      return;
    }
    try (FloatPointer host = new FloatPointer(values)) {
      write(host);
    }
  }

  /** As {@link #copyFromHost(float...)}. */
  public void copyFromHost(double... values) {
    requireNumbers(values.length);
    try (Pointer host =
        switch (dtype) {
          case FLOAT64 -> new DoublePointer(values);
          case FLOAT32 -> new FloatPointer(HostArrays.narrowed(values));
          default -> new ShortPointer(HostArrays.halves(values, dtype));
        }) {
      write(host);
    }
  }

  /**
   * Copies the remaining bytes of {@code bytes}, in the device's byte order (little-endian), to the
   * device; its position is left as it is.
   *
   * @throws IllegalArgumentException if they are not exactly this tensor's
   */
  public void copyFromHost(ByteBuffer bytes) {
    requireBytes(bytes.remaining());
    try (BytePointer host = new BytePointer(bytes())) {
      host.asByteBuffer().put(bytes.duplicate());
      write(host);
    }
  }

  /**
   * Copies the elements to a new array. Works after the group has failed, so that state can be
   * saved.
   *
   * @throws IllegalArgumentException for a tensor of float64, which would lose digits, or of bool
   */
  public float[] copyToHost() {
    if (dtype == DType.FLOAT64) {
      throw new IllegalArgumentException("a float array would lose digits of a float64 tensor");
    }
    int length = requireNumbers(elements);
    if (dtype != DType.FLOAT32) {
      short[] halves = new short[length];
      try (ShortPointer host = new ShortPointer(Math.max(1, elements))) {
        read(host);
        host.get(halves);
      }
      return HostArrays.floats(halves, dtype);
    }
    float[] values = new float[length];
    try (FloatPointer host = new FloatPointer(Math.max(1, elements))) {
      read(host);
      host.get(values);
    }
    return values;
  }

  /** As {@link #copyToHost()}, for every floating-point type. */
  public double[] copyToHostAsDoubles() {
    if (dtype != DType.FLOAT64) {
      return HostArrays.widened(copyToHost());
    }
    double[] values = new double[requireNumbers(elements)];
    try (DoublePointer host = new DoublePointer(Math.max(1, elements))) {
      read(host);
      host.get(values);
    }
    return values;
  }

  /**
   * Copies the elements to the remaining bytes of {@code bytes}; its position is left as it is.
   *
   * @throws IllegalArgumentException if there is not room for exactly this tensor
   */
  public void copyToHost(ByteBuffer bytes) {
    requireBytes(bytes.remaining());
    try (BytePointer host = new BytePointer(Math.max(1, bytes()))) {
      read(host);
      bytes.duplicate().put(host.asByteBuffer().limit(Math.toIntExact(bytes())));
    }
  }

  private void write(Pointer host) {
    replica.write(address(), host, bytes());
  }

  private void read(Pointer host) {
    replica.read(host, address(), bytes());
  }

  private int requireNumbers(long count) {
    if (!dtype.isFloatingPoint()) {
      throw new IllegalArgumentException("an array of numbers cannot hold a " + dtype + " tensor");
    }
    requireRowMajor();
    if (count != elements) {
      throw new IllegalArgumentException(
          count
              + " values for a tensor of "
              + elements
              + " elements, shape "
              + Arrays.toString(shape));
    }
    return Math.toIntExact(count);
  }

  private void requireBytes(long count) {
    requireRowMajor();
    if (count != bytes()) {
      throw new IllegalArgumentException(
          count + " bytes for a tensor of " + bytes() + " bytes, shape " + Arrays.toString(shape));
    }
  }

  private void requireRowMajor() {
    if (!isRowMajor()) {
      throw new IllegalArgumentException("not row-major: " + this);
    }
  }

  private void requireOpen() {
    if (isClosed()) {
      throw new IllegalStateException("the tensor is closed: " + this);
    }
  }

  private synchronized boolean isClosed() {
    return closed || (source instanceof DeviceTensor origin && origin.isClosed());
  }

  /**
   * Frees the memory if it is owned, after waiting for everything enqueued on the replica; where
   * that takes longer than the group's timeout, the group fails and is aborted. Idempotent.
   *
   * @throws IllegalStateException while the replica's stream is captured into a graph
   */
  @Override
  public void close() {
    synchronized (this) {
      if (closed) {
        return;
      }
      if (owned) {
        replica.requireNoCapture();
      }
      closed = true;
    }
    if (owned) {
      replica.forget(this);
      replica.free(address);
    }
  }

  @Override
  public String toString() {
    return dtype
        + Arrays.toString(shape)
        + " strides "
        + Arrays.toString(strides)
        + " on "
        + device().id();
  }
}
