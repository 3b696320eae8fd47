package io.github.syncbn4j.device;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import org.junit.jupiter.api.Test;

class HalfFloatsTest {
  private static final int NEGATIVE = 0x8000;

  private interface Decode {
    float of(short bits);
  }

  private interface Encode {
    short of(float value);
  }

  /**
   * @param infinity the bits of infinity
   */
  private record Format(Decode decode, Encode encode, int infinity) {}

  private static final Format FLOAT16 =
      new Format(HalfFloats::fromFloat16, HalfFloats::toFloat16, 0x7c00);
  private static final Format BFLOAT16 =
      new Format(HalfFloats::fromBfloat16, HalfFloats::toBfloat16, 0x7f80);

  @Test
  void knownValues_areDecoded() {
    assertThat(HalfFloats.fromFloat16((short) 0x3c00)).isEqualTo(1);
    assertThat(HalfFloats.fromFloat16((short) 0xc000)).isEqualTo(-2);
    assertThat(HalfFloats.fromFloat16((short) 0x7bff)).isEqualTo(65504);
    assertThat(HalfFloats.fromFloat16((short) 0x0001)).isEqualTo(0x1p-24f);
    assertThat(HalfFloats.fromFloat16((short) 0x7c00)).isEqualTo(Float.POSITIVE_INFINITY);
    assertThat(HalfFloats.fromFloat16((short) 0x7e00)).isNaN();
    assertThat(HalfFloats.fromBfloat16((short) 0x3f80)).isEqualTo(1);
    assertThat(HalfFloats.fromBfloat16((short) 0x0001)).isEqualTo(0x1p-133f);
  }

  @Test
  void everyPattern_survivesTheRoundTrip() {
    for (Format format : new Format[] {FLOAT16, BFLOAT16}) {
      for (int bits = 0; bits < 1 << 16; bits++) {
        float value = format.decode().of((short) bits);
        short again = format.encode().of(value);
        if (Float.isNaN(value)) {
          assertThat(format.decode().of(again)).isNaN();
        } else {
          assertThat(again).isEqualTo((short) bits);
        }
      }
    }
  }

  /** Nearer to no neighbour, and even where two are as near. */
  @Test
  void everyRounding_isToNearestEven() {
    Random random = new Random(7);
    for (Format format : new Format[] {FLOAT16, BFLOAT16}) {
      for (int i = 0; i < 300_000; i++) {
        assertRounded(format, Float.intBitsToFloat(random.nextInt()));
        int bits = random.nextInt(format.infinity() - 1);
        double low = format.decode().of((short) bits);
        double high = format.decode().of((short) (bits + 1));
        assertRounded(format, (float) ((low + high) / 2)); // a tie
      }
    }
    assertThat(HalfFloats.toFloat16(65519.996f)).isEqualTo((short) 0x7bff);
    assertThat(HalfFloats.toFloat16(65520f)).isEqualTo((short) 0x7c00);
    assertThat(HalfFloats.toFloat16(-0f)).isEqualTo((short) 0x8000);
    assertThat(HalfFloats.toBfloat16(Float.MAX_VALUE)).isEqualTo((short) 0x7f80);
  }

  private static void assertRounded(Format format, float value) {
    short bits = format.encode().of(value);
    if (Float.isNaN(value)) {
      assertThat(format.decode().of(bits)).isNaN();
      return;
    }
    int magnitude = bits & ~NEGATIVE & 0xffff;
    assertThat((bits & NEGATIVE) != 0).isEqualTo(Float.floatToRawIntBits(value) < 0);
    if (magnitude == format.infinity()) {
      return;
    }
    double error = Math.abs(Math.abs((double) value) - format.decode().of((short) magnitude));
    for (int neighbour : new int[] {magnitude - 1, magnitude + 1}) {
      if (neighbour >= 0 && neighbour < format.infinity()) {
        double other = Math.abs(Math.abs((double) value) - format.decode().of((short) neighbour));
        assertThat(error).as("%s", value).isLessThanOrEqualTo(other);
        if (error == other) {
          assertThat(magnitude & 1).as("%s", value).isZero();
        }
      }
    }
  }
}
