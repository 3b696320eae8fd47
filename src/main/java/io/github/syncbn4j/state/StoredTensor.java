package io.github.syncbn4j.state;

import io.github.syncbn4j.check.Elements;
import io.github.syncbn4j.check.Shown;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Map;

/**
 * A tensor as a safetensors file holds it: the format's name of its dtype, its shape, and its
 * elements in row-major order, little-endian.
 *
 * <p>Immutable as long as nobody writes to the buffer or the file behind it; safe for use by many
 * threads.
 */
public final class StoredTensor {
  /** The most bytes of one tensor: a {@link ByteBuffer} is indexed by {@code int}. */
  public static final long MAX_BYTES = Integer.MAX_VALUE;

  /** The most dimensions of one tensor. */
  public static final int MAX_RANK = 32;

  private static final Map<String, Integer> ELEMENT_BYTES =
      Map.ofEntries(
          Map.entry("BOOL", 1),
          Map.entry("U8", 1),
          Map.entry("I8", 1),
          Map.entry("F8_E4M3", 1),
          Map.entry("F8_E5M2", 1),
          Map.entry("F8_E8M0", 1),
          Map.entry("U16", 2),
          Map.entry("I16", 2),
          Map.entry("F16", 2),
          Map.entry("BF16", 2),
          Map.entry("U32", 4),
          Map.entry("I32", 4),
          Map.entry("F32", 4),
          Map.entry("U64", 8),
          Map.entry("I64", 8),
          Map.entry("F64", 8),
          Map.entry("C64", 8));

  /** The bits of 1 in the floating-point types that have one element a number. */
  private static final Map<String, Long> ONE =
      Map.of("F16", 0x3C00L, "BF16", 0x3F80L, "F32", 0x3F800000L, "F64", 0x3FF0000000000000L);

  private final String dtype;
  private final long[] shape;
  private final ByteBuffer data;

  /**
   * A tensor over the remaining bytes of {@code data}, which are not copied: the caller writes to
   * them no more.
   *
   * @param dtype the format's name, as in {@code F32}
   * @throws IllegalArgumentException for an unknown dtype, a negative dimension, more than {@link
   *     #MAX_RANK} dimensions or {@link #MAX_BYTES}, or if {@code data} is not exactly as long as
   *     dtype and shape say
   */
  public StoredTensor(String dtype, long[] shape, ByteBuffer data) {
    long bytes = bytes(dtype, shape);
    if (bytes != data.remaining()) {
      throw new IllegalArgumentException(
          "%s%s takes %d bytes, not %d"
              .formatted(dtype, Arrays.toString(shape), bytes, data.remaining()));
    }
    this.dtype = dtype;
    this.shape = shape.clone();
    this.data = data.slice().asReadOnlyBuffer();
  }

  /** The format's name of the element type, as in {@code F32}. */
  public String dtype() {
    return dtype;
  }

  /** A copy of the dimensions. */
  public long[] shape() {
    return shape.clone();
  }

  public long elements() {
    return data.capacity() / elementBytes(dtype);
  }

  /** The elements: a new read-only view, little-endian, from position 0 to its capacity. */
  public ByteBuffer data() {
    return data.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Whether it is F16, BF16, F32 or F64. */
  boolean isFloatingPoint() {
    return ONE.containsKey(dtype);
  }

  /** Zeros of the same dtype and shape. */
  StoredTensor zeros() {
    return new StoredTensor(dtype, shape, ByteBuffer.allocate(data.capacity()));
  }

  /** Ones of the same dtype, which is {@linkplain #isFloatingPoint floating-point}, and shape. */
  StoredTensor ones() {
    ByteBuffer ones = ByteBuffer.allocate(data.capacity()).order(ByteOrder.LITTLE_ENDIAN);
    while (ones.hasRemaining()) {
      switch (elementBytes(dtype)) {
        case 2 -> ones.putShort(ONE.get(dtype).shortValue());
        case 4 -> ones.putInt(ONE.get(dtype).intValue());
        default -> ones.putLong(ONE.get(dtype));
      }
    }
    return new StoredTensor(dtype, shape, ones.flip());
  }

  /** What such a tensor's {@link #toString} says: {@code F32[64]}. */
  public static String kind(String dtype, long[] shape) {
    return dtype + Arrays.toString(shape);
  }

  @Override
  public String toString() {
    return kind(dtype, shape);
  }

  /** Bytes of one element; 0 for a dtype that is not known. */
  static int elementBytes(String dtype) {
    return ELEMENT_BYTES.getOrDefault(dtype, 0);
  }

  /**
   * Bytes of a tensor.
   *
   * @throws IllegalArgumentException for an unknown dtype, a negative dimension, or a size beyond
   *     the limits
   */
  static long bytes(String dtype, long[] shape) {
    int elementBytes = elementBytes(dtype);
    if (elementBytes == 0) {
      throw new IllegalArgumentException("unknown dtype " + Shown.quoted(dtype));
    }
    if (shape.length > MAX_RANK) {
      throw new IllegalArgumentException(
          "shape has " + shape.length + " dimensions, the limit is " + MAX_RANK);
    }
    long elements = Elements.of(shape);
    if (elements > MAX_BYTES / elementBytes) {
      throw new IllegalArgumentException(
          "shape %s of %s takes more than %d bytes, the limit for one tensor"
              .formatted(Arrays.toString(shape), dtype, MAX_BYTES));
    }
    return elements * elementBytes;
  }
}
