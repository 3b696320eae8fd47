package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import java.nio.ByteBuffer;
import java.util.function.Consumer;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Tensor;

/**
 * libtorch's float32 tensors on the host, for one replica. A CPU replica works on them where they
 * are; for one on a GPU they are copied there and back.
 */
final class HostTensors {
  private final Replica replica;
  private final boolean here;

  HostTensors(Replica replica) {
    this.replica = replica;
    this.here = replica.deviceId().startsWith("cpu");
  }

  /** Sums the contiguous tensors of all replicas, in place. */
  void allReduce(Tensor tensor) {
    use(tensor, replica::allReduce);
  }

  /** Copies the contiguous tensor of one replica to those of all others. */
  void broadcast(Tensor tensor, int root) {
    use(tensor, there -> replica.broadcast(there, root));
  }

  private void use(Tensor tensor, Consumer<DeviceTensor> collective) {
    if (here) {
      collective.accept(replica.wrap(tensor.data_ptr(), DType.FLOAT32, tensor.shape()));
      return;
    }
    try (DeviceTensor there = replica.allocate(DType.FLOAT32, tensor.shape())) {
      there.copyFromHost(bytes(tensor));
      collective.accept(there);
      there.copyToHost(bytes(tensor));
    }
  }

  /** The memory of a contiguous tensor. */
  private static ByteBuffer bytes(Tensor tensor) {
    return new BytePointer(tensor.data_ptr()).capacity(tensor.nbytes()).asByteBuffer();
  }
}
