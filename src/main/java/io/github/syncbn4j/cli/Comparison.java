package io.github.syncbn4j.cli;

import io.github.syncbn4j.state.StoredTensor;
import java.util.Arrays;
import java.util.Locale;
import java.util.Map;

/**
 * How near what a layer produced is to what a recording expects. Every tensor of either side has to
 * be on the other, so that nothing that is recorded goes uncompared.
 *
 * @param within whether all is within tolerance
 * @param text the worst error and where it is, or what is missing; for one line
 */
record Comparison(boolean within, String text) {
  /** The element that is worst so far. */
  private record Worst(double fraction, String tensor, long index, double got, double want) {}

  static Comparison of(Recording recording, Map<String, StoredTensor> produced) {
    Map<String, StoredTensor> expected = recording.expected();
    for (String name : expected.keySet()) {
      if (!produced.containsKey(name)) {
        return new Comparison(false, name + " is expected, but the layer did not produce it");
      }
    }
    for (String name : produced.keySet()) {
      if (!expected.containsKey(name)) {
        return new Comparison(false, name + " was produced, but the file has none to compare with");
      }
    }
    Worst worst = null;
    for (Map.Entry<String, StoredTensor> entry : expected.entrySet()) {
      String name = entry.getKey();
      StoredTensor want = entry.getValue();
      StoredTensor got = produced.get(name);
      if (!got.dtype().equals(want.dtype()) || !Arrays.equals(got.shape(), want.shape())) {
        return new Comparison(false, "%s must be %s, expected is %s".formatted(name, got, want));
      }
      Worst here = worst(recording.recorded(), name, Dtypes.doubles(got), Dtypes.doubles(want));
      worst = worst == null || here.fraction() > worst.fraction() ? here : worst;
    }
    return verdict(worst);
  }

  private static Comparison verdict(Worst worst) {
    String where =
        String.format(
            Locale.ROOT, "worst %.2f of tolerance at %s", worst.fraction(), worst.tensor());
    if (worst.fraction() <= 1) {
      return new Comparison(true, where);
    }
    return new Comparison(
        false,
        String.format(
            Locale.ROOT,
            "%s, element %d: got %.9g, want %.9g",
            where,
            worst.index(),
            worst.got(),
            worst.want()));
  }

  private static Worst worst(ReplayCase recorded, String name, double[] got, double[] want) {
    String last = name.substring(name.lastIndexOf('.') + 1);
    Tolerance tolerance =
        (recorded.state().contains(last) ? recorded.stateTolerance() : recorded.tolerance())
            .orElseThrow();
    boolean byLargest = last.equals("dx") || last.endsWith("_grad");
    double largest = byLargest ? largest(want) : 0;
    Worst worst = new Worst(0, name, 0, 0, 0);
    for (int i = 0; i < want.length; i++) {
      double magnitude = byLargest ? largest : Math.abs(want[i]);
      double fraction = tolerance.fraction(got[i], want[i], magnitude);
      if (fraction > worst.fraction()) {
        worst = new Worst(fraction, name, i, got[i], want[i]);
      }
    }
    return worst;
  }

  /** The largest absolute value; what is not finite gives no leeway to the others. */
  private static double largest(double[] values) {
    return Arrays.stream(values).map(Math::abs).filter(Double::isFinite).max().orElse(0);
  }
}
