package io.github.syncbn4j.cli.bench;

import java.util.List;
import java.util.Locale;

/** What is timed of a layer, and how often it has to cross the memory bus. */
enum Pass {
  FORWARD(3, 2, false),
  BACKWARD(5, 3, false),
  INFERENCE(2, 2, false),
  /** Normalization, then a residual added, then ReLU, as one call. */
  FORWARD_ADD_RELU(4, 3, true),
  /** Gradients of the input and of the residual. */
  BACKWARD_ADD_RELU(6, 4, true),
  INFERENCE_ADD_RELU(3, 3, true);

  static final List<Pass> PLAIN = List.of(FORWARD, BACKWARD);

  private static final double TENSORS_OF_COPY = 2;

  private final int tensors;
  private final int tensorsOnChip;
  private final boolean addsAndRectifies;

  Pass(int tensors, int tensorsOnChip, boolean addsAndRectifies) {
    this.tensors = tensors;
    this.tensorsOnChip = tensorsOnChip;
    this.addsAndRectifies = addsAndRectifies;
  }

  /** As in {@code forward_add_relu}. */
  String text() {
    return name().toLowerCase(Locale.ROOT);
  }

  boolean addsAndRectifies() {
    return addsAndRectifies;
  }

  boolean isBackward() {
    return this == BACKWARD || this == BACKWARD_ADD_RELU;
  }

  boolean isInference() {
    return this == INFERENCE || this == INFERENCE_ADD_RELU;
  }

  /** Tensors of x's size that are read and written where nothing stays on chip. */
  int tensors() {
    return tensors;
  }

  /** The bytes of {@link #tensors}, in copies. */
  double floor() {
    return tensors / TENSORS_OF_COPY;
  }

  /** As {@link #floor}, where everything stays on chip from its first reading on. */
  double floorOnChip() {
    return tensorsOnChip / TENSORS_OF_COPY;
  }
}
