package io.github.syncbn4j.job;

/**
 * What a row carries so that replicas notice when they are at different steps: layer, direction and
 * step number, packed into the 53 bits that a float64 holds exactly. Never 0, which is what rows
 * hold before an exchange.
 */
public final class Signature {
  private static final int STEP_BITS = 32;
  private static final int LAYER_BITS = 19;
  private static final long STEP_MASK = (1L << STEP_BITS) - 1;
  private static final long LAYER_MASK = (1L << LAYER_BITS) - 1;
  private static final long MARK = 1L << (STEP_BITS + 1 + LAYER_BITS);

  private Signature() {}

  /**
   * @param layer the layer's number in its group, modulo 2^19
   * @param step the layer's training forwards so far, modulo 2^32
   */
  public static double of(int layer, long step, boolean backward) {
    long place = (layer & LAYER_MASK) << 1 | (backward ? 1 : 0);
    return MARK | place << STEP_BITS | step & STEP_MASK;
  }

  public static String describe(double signature) {
    long packed = (long) signature;
    if (packed != signature || (packed & -MARK) != MARK) {
      return "no step at all (" + signature + ")";
    }
    return "layer %d, %s of step %d"
        .formatted(
            packed >>> STEP_BITS + 1 & LAYER_MASK,
            (packed >>> STEP_BITS & 1) == 1 ? "backward" : "forward",
            packed & STEP_MASK);
  }
}
