package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import org.bytedeco.pytorch.Tensor;

/** A tensor of libtorch's as the layer takes it: where it is, or copied to the replica's device. */
final class Lent implements AutoCloseable {
  private final Tensor tensor;
  private final DeviceCopy copy;
  private final DeviceTensor asTaken;

  private Lent(Replica replica, Tensor tensor, DType dtype, DeviceCopy copy) {
    this.tensor = tensor;
    this.copy = copy;
    this.asTaken =
        replica.wrapStrided(
            copy == null ? Tensors.address(tensor) : copy.address(),
            dtype,
            tensor.shape(),
            Tensors.strides(tensor));
  }

  /** To be read. */
  static Lent input(Replica replica, Tensor tensor, boolean copied) {
    if (copied && !tensor.is_non_overlapping_and_dense()) {
      try (Tensor dense = tensor.contiguous()) {
        return input(replica, dense, true);
      }
    }
    return inPlace(replica, tensor, Tensors.dtype(tensor.scalar_type()), copied);
  }

  /** To be read, and written and then {@link #fetch}ed: without gaps, if it is copied. */
  static Lent inPlace(Replica replica, Tensor tensor, DType dtype, boolean copied) {
    DeviceCopy copy = null;
    if (copied) {
      copy = new DeviceCopy(replica, tensor);
      copy.load(tensor);
    }
    return new Lent(replica, tensor, dtype, copy);
  }

  /** To be written, and then {@link #fetch}ed: without gaps. */
  static Lent output(Replica replica, Tensor tensor, boolean copied) {
    DType dtype = Tensors.dtype(tensor.scalar_type());
    return new Lent(replica, tensor, dtype, copied ? new DeviceCopy(replica, tensor) : null);
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
