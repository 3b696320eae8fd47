package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.device.HalfFloats;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/**
 * The tensors of a problem, several sets of them: enough that none is in a cache when its turn
 * comes again, or one for what is to stay there. All sets hold the same values. The images of a
 * batch are shared among the parts of the place, in order.
 */
final class Operands implements AutoCloseable {
  /** Of the place's cache, by which what is rotated exceeds it: each kind of tensor alone. */
  private static final int CACHES = 2;

  /** So that no rounding decides whether ReLU lets a value through. */
  private static final double CLEAR_OF_ZERO = 1e-2;

  private static final int ALIGNMENT = 64;

  final Problem problem;
  final Place place;
  final int sets;
  final float[] gamma;
  final float[] beta;
  final float[] movingMean;
  final float[] movingVariance;

  /** Values of any set. */
  final float[] x;

  final float[] dy;

  /** Null if no pass adds one. */
  final float[] residual;

  final Reference reference;
  private final List<long[]> memory = new ArrayList<>();
  private final long[] ofX;
  private final long[] ofDy;
  private final long[] ofResidual;
  private final long[] ofOut;
  private final long[] ofDresidual;

  Operands(Problem problem, Place place) {
    this.problem = problem;
    this.place = place;
    long bytes = problem.images() / place.parts() * imageBytes(); // of the smallest share
    sets =
        problem.cold() ? (int) Math.max(2, (CACHES * place.cacheBytes() + bytes - 1) / bytes) : 1;
    int n = Math.toIntExact(problem.elements());
    int channels = problem.channels();
    gamma = new float[channels];
    beta = new float[channels];
    movingMean = new float[channels];
    movingVariance = new float[channels];
    for (int c = 0; c < channels; c++) {
      gamma[c] = (float) (1 + Math.sin(c) / 4);
      beta[c] = (float) (Math.cos(c) / 2);
      movingMean[c] = (float) Math.sin(c + 1);
      movingVariance[c] = (float) (1 + Math.cos(c + 1) / 2);
    }
    SplittableRandom random = new SplittableRandom(1);
    x = new float[n];
    dy = new float[n];
    for (int i = 0; i < n; i++) {
      x[i] = rounded(3 * random.nextDouble() - 1);
      dy[i] = rounded(2 * random.nextDouble() - 1);
    }
    boolean adds = problem.passes().stream().anyMatch(Pass::addsAndRectifies);
    residual = adds ? new float[n] : null;
    reference = new Reference(this);
    if (adds) {
      for (int i = 0; i < n; i++) {
        double value = 2 * random.nextDouble() - 1;
        residual[i] = rounded(value);
        if (isNearZero(i)) {
          residual[i] = rounded(value + 8 * CLEAR_OF_ZERO);
        }
      }
    }
    ofX = allocated();
    ofDy = allocated();
    ofResidual = adds ? allocated() : null;
    ofOut = allocated();
    ofDresidual = adds ? allocated() : null;
    fill(ofX, x);
    fill(ofDy, dy);
    if (adds) {
      fill(ofResidual, residual);
    }
    poison();
  }

  private boolean isNearZero(int i) {
    return Math.abs(reference.normalized(i, false) + residual[i]) < CLEAR_OF_ZERO
        || Math.abs(reference.normalized(i, true) + residual[i]) < CLEAR_OF_ZERO;
  }

  private float rounded(double value) {
    return switch (problem.dtype()) {
      case FLOAT16 -> HalfFloats.fromFloat16(HalfFloats.toFloat16(value));
      case BFLOAT16 -> HalfFloats.fromBfloat16(HalfFloats.toBfloat16(value));
      default -> (float) value;
    };
  }

  /** Of each part. */
  private long[] allocated() {
    long[] addresses = new long[place.parts()];
    for (int part = 0; part < addresses.length; part++) {
      addresses[part] = place.allocate(part, sets * stride(part));
    }
    memory.add(addresses);
    return addresses;
  }

  private void fill(long[] addresses, float[] values) {
    ByteBuffer buffer =
        ByteBuffer.allocateDirect(Math.toIntExact(problem.bytes())).order(ByteOrder.nativeOrder());
    for (int i = 0; i < values.length; i++) {
      switch (problem.dtype()) {
        case FLOAT16 -> buffer.putShort(i * Short.BYTES, HalfFloats.toFloat16(values[i]));
        case BFLOAT16 -> buffer.putShort(i * Short.BYTES, HalfFloats.toBfloat16(values[i]));
        default -> buffer.putFloat(i * Float.BYTES, values[i]);
      }
    }
    int begin = 0;
    for (int part = 0; part < addresses.length; part++) {
      int bytes = Math.toIntExact(bytes(part));
      for (int set = 0; set < sets; set++) {
        place.write(part, addresses[part] + set * stride(part), buffer.slice(begin, bytes));
      }
      begin += bytes;
    }
  }

  /** Not numbers into all outputs, so that what a call should have written, and has not, shows. */
  void poison() {
    for (int part = 0; part < place.parts(); part++) {
      place.fill(part, ofOut[part], 0xff, sets * stride(part));
      if (ofDresidual != null) {
        place.fill(part, ofDresidual[part], 0xff, sets * stride(part));
      }
    }
  }

  /** Where a part has its share of a set of tensors. */
  interface Addresses {
    long of(int part, int set);
  }

  long x(int part, int set) {
    return ofX[part] + set * stride(part);
  }

  long dy(int part, int set) {
    return ofDy[part] + set * stride(part);
  }

  long residual(int part, int set) {
    return ofResidual[part] + set * stride(part);
  }

  /** y, or dx. */
  long out(int part, int set) {
    return ofOut[part] + set * stride(part);
  }

  long dresidual(int part, int set) {
    return ofDresidual[part] + set * stride(part);
  }

  /** Of the images of a part, and of all that come after. */
  int firstImage(int part) {
    return problem.firstImage(part, place.parts());
  }

  /** Of a part's share of a tensor. */
  long bytes(int part) {
    return (firstImage(part + 1) - firstImage(part)) * imageBytes();
  }

  long imageBytes() {
    return problem.bytes() / problem.images();
  }

  private long stride(int part) {
    return (bytes(part) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }

  /** Reads an element at a time. */
  interface Values {
    double at(int i);
  }

  /** Those of a tensor of the problem's shape, of all parts. */
  Values values(Addresses addresses, int set) {
    ByteBuffer buffer =
        ByteBuffer.allocate(Math.toIntExact(problem.bytes())).order(ByteOrder.nativeOrder());
    for (int part = 0; part < place.parts(); part++) {
      buffer.put(place.read(part, addresses.of(part, set), bytes(part)));
    }
    return switch (problem.dtype()) {
      case FLOAT16 -> i -> HalfFloats.fromFloat16(buffer.getShort(i * Short.BYTES));
      case BFLOAT16 -> i -> HalfFloats.fromBfloat16(buffer.getShort(i * Short.BYTES));
      default -> i -> buffer.getFloat(i * Float.BYTES);
    };
  }

  /** Half a unit in the last place, of values that are rounded to the tensors' type. */
  double rounding() {
    return problem.dtype() == DType.FLOAT16
        ? 0x1p-11
        : problem.dtype() == DType.BFLOAT16 ? 0x1p-8 : 0;
  }

  @Override
  public void close() {
    for (long[] addresses : memory) {
      for (int part = 0; part < addresses.length; part++) {
        place.free(part, addresses[part]);
      }
    }
    memory.clear();
  }
}
