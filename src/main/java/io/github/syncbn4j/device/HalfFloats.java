package io.github.syncbn4j.device;

/**
 * Conversions of float16 (IEEE 754 binary16) and bfloat16, as the kernels make them: to nearest,
 * ties to even; NaN stays NaN. JavaCPP's indexers round otherwise, and Java has its own from 20 on.
 */
public final class HalfFloats {
  private static final int FLOAT_MANTISSA = 23;
  private static final int HALF_MANTISSA = 10;
  private static final int HALF_INFINITY = 0x7c00;
  private static final int HALF_QUIET = 0x200;

  /** The smallest normal float16, 2^-14. */
  private static final float HALF_NORMAL = 0x1p-14f;

  /** What rounds to infinity: halfway between the largest float16 and 2^16. */
  private static final float HALF_OVERFLOW = 65520f;

  private HalfFloats() {}

  public static float fromFloat16(short bits) {
    int magnitude = bits & 0x7fff;
    float value;
    if (magnitude >= HALF_INFINITY) {
      value =
          magnitude == HALF_INFINITY
              ? Float.POSITIVE_INFINITY
              : Float.intBitsToFloat(
                  0x7f800000 | (magnitude & 0x3ff) << FLOAT_MANTISSA - HALF_MANTISSA);
    } else if (magnitude < 1 << HALF_MANTISSA) {
      value = magnitude * 0x1p-24f;
    } else {
      value =
          Float.intBitsToFloat(
              (magnitude << FLOAT_MANTISSA - HALF_MANTISSA) + (127 - 15 << FLOAT_MANTISSA));
    }
    return bits < 0 ? -value : value;
  }

  public static short toFloat16(float value) {
    int sign = Float.floatToRawIntBits(value) >>> 16 & 0x8000;
    float magnitude = Math.abs(value);
    int half;
    if (Float.isNaN(value)) {
      half = HALF_INFINITY | HALF_QUIET;
    } else if (magnitude >= HALF_OVERFLOW) {
      half = HALF_INFINITY;
    } else if (magnitude < HALF_NORMAL) {
      half = (int) Math.rint(magnitude * 0x1p24);
    } else {
      int bits = Float.floatToRawIntBits(magnitude);
      int dropped = FLOAT_MANTISSA - HALF_MANTISSA;
      int even = bits >>> dropped & 1;
      half = (bits + (1 << dropped - 1) - 1 + even >>> dropped) - (127 - 15 << HALF_MANTISSA);
    }
    return (short) (sign | half);
  }

  /** Rounded once. */
  public static short toFloat16(double value) {
    return toFloat16(roundedToOdd(value));
  }

  /** Rounded once. */
  public static short toBfloat16(double value) {
    return toBfloat16(roundedToOdd(value));
  }

  /**
   * A float that says in its last bit whether anything was cut off, so that rounding it to fewer
   * bits gives what rounding {@code value} would.
   */
  private static float roundedToOdd(double value) {
    float nearest = (float) value;
    if (nearest == value || Double.isNaN(value) || Float.isInfinite(nearest)) {
      return nearest;
    }
    int bits = Float.floatToRawIntBits(nearest);
    int towardsZero = Math.abs(nearest) > Math.abs(value) ? bits - 1 : bits;
    return Float.intBitsToFloat(towardsZero | 1);
  }

  public static float fromBfloat16(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }

  public static short toBfloat16(float value) {
    int bits = Float.floatToRawIntBits(value);
    if (Float.isNaN(value)) {
      return (short) (bits >>> 16 | 0x40);
    }
    return (short) (bits + 0x7fff + (bits >>> 16 & 1) >>> 16);
  }
}
