package io.github.syncbn4j;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Limits of batch renormalization's correction, Keras' {@code renorm_clipping}: r is held to {@code
 * rmin..rmax} and d to {@code -dmax..dmax}. A null is no limit.
 *
 * <p>As in tf.keras, contradicting limits are taken in order: r first to at least rmin, then to at
 * most rmax; d first to at least -dmax, then to at most dmax.
 */
public record RenormClipping(Double rmin, Double rmax, Double dmax) {
  /** No limits. */
  public static final RenormClipping NONE = new RenormClipping(null, null, null);

  /**
   * @throws IllegalArgumentException for NaN and infinities
   */
  public RenormClipping {
    requireFinite("rmin", rmin);
    requireFinite("rmax", rmax);
    requireFinite("dmax", dmax);
  }

  private static void requireFinite(String name, Double value) {
    if (value != null && !Double.isFinite(value)) {
      throw new IllegalArgumentException(
          "renorm_clipping's " + name + " must be finite, not " + value);
    }
  }

  /** Keras' dictionary: {@code rmax, rmin, dmax}, only those that are given. */
  Map<String, Object> toMap() {
    Map<String, Object> limits = new LinkedHashMap<>();
    putIfGiven(limits, "rmax", rmax);
    putIfGiven(limits, "rmin", rmin);
    putIfGiven(limits, "dmax", dmax);
    return limits;
  }

  private static void putIfGiven(Map<String, Object> limits, String name, Double value) {
    if (value != null) {
      limits.put(name, value);
    }
  }

  double lowestR() {
    return rmin == null ? Double.NEGATIVE_INFINITY : rmin;
  }

  double highestR() {
    return rmax == null ? Double.POSITIVE_INFINITY : rmax;
  }

  double highestD() {
    return dmax == null ? Double.POSITIVE_INFINITY : dmax;
  }
}
