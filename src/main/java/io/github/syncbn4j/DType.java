package io.github.syncbn4j;

import io.github.syncbn4j.device.natives.CpuKernels;

/** Element types of tensors. */
public enum DType {
  FLOAT32("float32", Float.BYTES, CpuKernels.SYNCBN_FLOAT32),
  FLOAT16("float16", Short.BYTES, CpuKernels.SYNCBN_FLOAT16),
  BFLOAT16("bfloat16", Short.BYTES, CpuKernels.SYNCBN_BFLOAT16),
  FLOAT64("float64", Double.BYTES, CpuKernels.SYNCBN_FLOAT64),
  /** For masks: a byte an element, 0 is false. */
  BOOL("bool", Byte.BYTES, -1);

  private final String label;
  private final int bytes;
  private final int code;

  DType(String label, int bytes, int code) {
    this.label = label;
    this.bytes = bytes;
    this.code = code;
  }

  /** Bytes of one element. */
  public int bytes() {
    return bytes;
  }

  /** Whether a layer can normalize tensors of this type. */
  public boolean isFloatingPoint() {
    return code >= 0;
  }

  /**
   * The type of the parameters, their gradients and the statistics of a layer for tensors of this
   * type: float64 for float64, float32 for all others.
   */
  public DType ofParameters() {
    return this == FLOAT64 ? FLOAT64 : FLOAT32;
  }

  /** The {@code syncbn_dtype} of the C ABI. */
  int code() {
    return code;
  }

  /** Keras' name, as in {@code float32}. */
  @Override
  public String toString() {
    return label;
  }
}
