package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import org.bytedeco.pytorch.Tensor;

/** A tensor of libtorch's as the layer takes it: where it is, or copied to the replica's device. */
final class Lent implements AutoCloseable {
  private final Tensor tensor;
  private final DeviceCopy copy;
  private final DeviceTensor asTaken;

  private Lent(Replica replica, Tensor tensor, DeviceCopy copy) {
    this.tensor = tensor;
    this.copy = copy;
    this.asTaken =
        replica.wrapStrided(
            copy == null ? Tensors.address(tensor) : copy.address(),
            Tensors.dtype(tensor.scalar_type()),
            tensor.shape(),
            Tensors.strides(tensor));
  }

  /** To be read. */
  static Lent input(Replica replica, Tensor tensor, boolean copied) {
    if (!copied) {
      return new Lent(replica, tensor, null);
    }
    if (!tensor.is_non_overlapping_and_dense()) {
      try (Tensor dense = tensor.contiguous()) {
        return input(replica, dense, true);
      }
    }
    DeviceCopy copy = new DeviceCopy(replica, tensor);
    copy.load(tensor);
    return new Lent(replica, tensor, copy);
  }

  /** To be written, and then {@link #fetch}ed: without gaps. */
  static Lent output(Replica replica, Tensor tensor, boolean copied) {
    return new Lent(replica, tensor, copied ? new DeviceCopy(replica, tensor) : null);
  }

  DeviceTensor tensor() {
    return asTaken;
  }

  /** Brings what the layer wrote into the tensor. */
  void fetch() {
    if (copy != null) {
      copy.store(tensor);
    }
  }

  @Override
  public void close() {
    if (copy != null) {
      copy.close();
    }
  }
}
