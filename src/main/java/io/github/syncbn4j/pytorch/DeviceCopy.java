package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import java.nio.ByteBuffer;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Tensor;

/**
 * Memory on a replica's GPU for the bytes of a tensor that libtorch has on the CPU. The tensor lies
 * without gaps, in any order of dimensions; its elements lie the same here.
 */
final class DeviceCopy implements AutoCloseable {
  private final DeviceTensor bytes;

  DeviceCopy(Replica replica, Tensor tensor) {
    bytes = replica.allocate(DType.BOOL, tensor.nbytes());
  }

  long address() {
    return bytes.address();
  }

  /** Copies the tensor here. Waits for the replica. */
  void load(Tensor tensor) {
    if (bytes.elements() > 0) {
      bytes.copyFromHost(buffer(tensor));
    }
  }

  /** Copies what is here to the tensor. Waits for the replica. */
  void store(Tensor tensor) {
    copyTo(tensor, bytes);
  }

  /** Copies to a tensor of as many bytes. Waits for the replica. */
  static void copyTo(Tensor tensor, DeviceTensor from) {
    if (from.elements() > 0) {
      from.copyToHost(buffer(tensor));
    }
  }

  private static ByteBuffer buffer(Tensor tensor) {
    return new BytePointer(tensor.data_ptr()).capacity(tensor.nbytes()).asByteBuffer();
  }

  @Override
  public void close() {
    bytes.close();
  }
}
