package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.DType;
import java.util.Map;

/**
 * How near a layer's results must be to {@link PlainLayer}'s.
 *
 * <p>A value depends on at most two sums, one of the forward and one of the backward. The kernels
 * add up to 66 numbers in a row in float32 (the CUDA ones; the CPU's 24) before they go on in
 * float64, and a dozen operations follow: 144 roundings, each of at most half a unit in the last
 * place of the largest terms. They point either way, so that their sum is of the order of the root:
 * {@value #ROUNDINGS} of them bound it. A 16-bit tensor is computed with in float32 and rounded
 * once more. In float64 the bound is the specification's 1e-12, which leaves room for the plain
 * loops' own roundings.
 */
final class Accuracy {
  private static final int ROUNDINGS = 16;
  private static final double FLOAT32 = 0x1p-24;
  private static final double FLOAT64_BOUND = 1e-12;

  private Accuracy() {}

  /** The error that is allowed of a number. */
  static double bound(PlainLayer.Result result, double want, DType dtype) {
    if (dtype == DType.FLOAT64) {
      return FLOAT64_BOUND * Math.max(1, result.scale());
    }
    double computed = ROUNDINGS * FLOAT32 * result.scale();
    return computed + (result.ofTensor() ? lastRounding(dtype, want) : 0);
  }

  /** Half a unit in the last place of 16-bit numbers, of which float16 has subnormal ones. */
  private static double lastRounding(DType dtype, double want) {
    return switch (dtype) {
      case FLOAT16 -> Math.max(Math.abs(want) * 0x1p-11, 0x1p-25);
      case BFLOAT16 -> Math.abs(want) * 0x1p-8;
      default -> 0;
    };
  }

  static void assertClose(
      Map<String, double[]> got, Map<String, PlainLayer.Result> want, DType dtype, String context) {
    assertThat(got.keySet()).as(context).isEqualTo(want.keySet());
    want.forEach((name, result) -> assertClose(name, got.get(name), result, dtype, context));
  }

  private static void assertClose(
      String name, double[] got, PlainLayer.Result want, DType dtype, String context) {
    assertThat(got).as("%s: %s", context, name).hasSameSizeAs(want.values());
    for (int i = 0; i < got.length; i++) {
      double wanted = want.values()[i];
      if (Double.isNaN(wanted) && Double.isNaN(got[i])) {
        continue;
      }
      double bound = bound(want, wanted, dtype);
      double error = Math.abs(got[i] - wanted);
      if (!(error <= bound)) {
        throw new AssertionError(
            "%s:%n%s[%d] is %s, must be %s: an error of %.3g, %.3g is allowed"
                .formatted(context, name, i, got[i], wanted, error, bound));
      }
    }
  }
}
