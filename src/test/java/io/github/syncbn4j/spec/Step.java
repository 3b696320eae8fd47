package io.github.syncbn4j.spec;

import java.util.List;

/**
 * What one step brings, a tensor a replica. The fields are a test's to set; what is null is not
 * there.
 */
final class Step {
  final boolean training;
  final List<Values> x;

  /** Gradients of the loss by y; null for no backward. */
  List<Values> dy;

  List<Values> residual;

  /**
   * 1 where an element counts and 0 where it does not: the shapes of x without the last dimension.
   * A null element is all of a replica.
   */
  List<Values> mask;

  /** These two together; they broadcast against x. */
  List<Values> adjustScale;

  List<Values> adjustBias;

  /** Whether the outputs are computed a second time, before backward. */
  boolean recompute;

  /** Whether results go where something was read, as far as the layer allows it. */
  boolean inPlace;

  Step(boolean training, List<Values> x) {
    this.training = training;
    this.x = x;
  }

  static Step training(Values... x) {
    return new Step(true, List.of(x));
  }

  static Step inference(Values... x) {
    return new Step(false, List.of(x));
  }

  Step dy(Values... dy) {
    this.dy = List.of(dy);
    return this;
  }

  Step mask(Values... mask) {
    this.mask = List.of(mask);
    return this;
  }

  @Override
  public String toString() {
    return (training ? "training" : "inference")
        + (dy == null ? "" : ", backward")
        + (residual == null ? "" : ", residual")
        + (mask == null ? "" : ", mask")
        + (adjustScale == null ? "" : ", adjustment")
        + (recompute ? ", recompute" : "")
        + (inPlace ? ", in place" : "");
  }
}
