package io.github.syncbn4j.pytorch;

import org.bytedeco.pytorch.AutoGradMode;
import org.bytedeco.pytorch.Tensor;

/**
 * The tensor's own memory. Loading a model gives a tensor other memory: its values are then brought
 * into the first, and the tensor back to it, so that parameters stay where the layer knows them.
 */
final class SharedHome extends Home {
  /** Another tensor over the memory, which keeps it. */
  private final Tensor memory;

  private final long address;

  SharedHome(String name, Tensor tensor) {
    super(name, tensor);
    this.memory = tensor.detach().retainReference();
    this.address = Tensors.address(tensor);
  }

  @Override
  long address() {
    return address;
  }

  @Override
  @SuppressWarnings("try")
  void toLayer() {
    if (Tensors.address(tensor()) == address) {
      return;
    }
    requireUnchanged();
    try (AutoGradMode ignored = new AutoGradMode(false)) {
      memory.copy_(tensor());
      tensor().set_data(memory);
    }
  }

  @Override
  void fromLayer() {}

  @Override
  void close() {}
}
