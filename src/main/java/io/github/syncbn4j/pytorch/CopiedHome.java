package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Replica;
import org.bytedeco.pytorch.Tensor;

/** Memory on the replica's GPU, to and from which a tensor on the CPU is copied with each step. */
final class CopiedHome extends Home {
  private final DeviceCopy copy;

  CopiedHome(Replica replica, String name, Tensor tensor) {
    super(name, tensor);
    this.copy = new DeviceCopy(replica, tensor);
  }

  @Override
  long address() {
    return copy.address();
  }

  @Override
  void toLayer() {
    requireUnchanged();
    copy.load(tensor());
  }

  @Override
  void fromLayer() {
    copy.store(tensor());
  }

  @Override
  void close() {
    copy.close();
  }
}
