package io.github.syncbn4j;

/**
 * What a row carries so that replicas notice when they are at different steps: layer, direction and
 * step number, packed into the 53 bits that a float64 holds exactly.
 */
final class Signature {
  private static final int STEP_BITS = 32;
  private static final long STEP_MASK = (1L << STEP_BITS) - 1;

  private Signature() {}

  /**
   * @param layer the layer's number in its group; 20 bits are used
   * @param step the layer's training forwards so far; 32 bits are used
   */
  static double of(int layer, long step, boolean backward) {
    long packed = ((long) (layer & 0xfffff) << 1 | (backward ? 1 : 0)) << STEP_BITS;
    return packed | step & STEP_MASK;
  }

  static String describe(double signature) {
    if (!(signature >= 0 && signature < (1L << 53)) || signature != Math.rint(signature)) {
      return "no step of ours (" + signature + ")";
    }
    long packed = (long) signature;
    return "layer %d, %s of step %d"
        .formatted(
            packed >>> STEP_BITS + 1,
            (packed >>> STEP_BITS & 1) == 1 ? "backward" : "forward",
            packed & STEP_MASK);
  }
}
