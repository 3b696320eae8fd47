package io.github.syncbn4j;

import io.github.syncbn4j.device.HalfFloats;

/** Arrays of numbers on the host as other types hold them. */
final class HostArrays {
  private HostArrays() {}

  static double[] widened(float[] values) {
    double[] doubles = new double[values.length];
    for (int i = 0; i < values.length; i++) {
      doubles[i] = values[i];
    }
    return doubles;
  }

  static float[] narrowed(double[] values) {
    float[] floats = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      floats[i] = (float) values[i];
    }
    return floats;
  }

  static short[] halves(double[] values, DType dtype) {
    short[] halves = new short[values.length];
    for (int i = 0; i < values.length; i++) {
      halves[i] =
          dtype == DType.FLOAT16
              ? HalfFloats.toFloat16(values[i])
              : HalfFloats.toBfloat16(values[i]);
    }
    return halves;
  }

  static float[] floats(short[] halves, DType dtype) {
    float[] values = new float[halves.length];
    for (int i = 0; i < halves.length; i++) {
      values[i] =
          dtype == DType.FLOAT16
              ? HalfFloats.fromFloat16(halves[i])
              : HalfFloats.fromBfloat16(halves[i]);
    }
    return values;
  }
}
