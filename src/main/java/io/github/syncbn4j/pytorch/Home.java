package io.github.syncbn4j.pytorch;

import org.bytedeco.pytorch.Tensor;

/** One parameter or buffer of a batch norm, and the memory in which the layer has it. */
abstract class Home {
  private final String name;
  private final Tensor tensor;
  private final String before;

  Home(String name, Tensor tensor) {
    this.name = name;
    this.tensor = tensor;
    this.before = Tensors.describe(tensor);
    if (!tensor.is_contiguous()) {
      throw new IllegalArgumentException(this + " does not lie without gaps");
    }
  }

  Tensor tensor() {
    return tensor;
  }

  /** Of the layer's memory. */
  abstract long address();

  /**
   * Gives the layer the tensor's values.
   *
   * @throws IllegalStateException if it has another type, shape or device than at first
   */
  abstract void toLayer();

  /** Gives the tensor what a step of the layer changed. */
  abstract void fromLayer();

  /** Releases memory that is not the tensor's. */
  abstract void close();

  void requireUnchanged() {
    String now = Tensors.describe(tensor);
    if (!now.equals(before)) {
      throw new IllegalStateException(
          "%s is now %s, and was %s when its batch norm was synchronized: convert or move a model before that"
              .formatted(name, now, before));
    }
  }

  /** As in {@code weight, Float[64] on cpu}. */
  @Override
  public String toString() {
    return name + ", " + before;
  }
}
