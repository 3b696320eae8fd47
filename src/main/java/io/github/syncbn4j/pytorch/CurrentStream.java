package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Replica;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.cuda.CUDAStream;
import org.bytedeco.pytorch.global.torch_cuda;

/**
 * libtorch's current CUDA stream, which a replica takes where tensors are on its GPU. Everything is
 * then in order with libtorch's kernels, and its allocator, which hands on freed memory in the
 * order of the stream, needs to know of no other.
 *
 * <p>libtorch has one current stream a thread and device. A backward runs in a thread of libtorch's
 * and there on the stream that was current when {@code create_gradient_edge} noted y for the node
 * ({@code InputMetadata}): {@code Engine::evaluate_function} makes it the current one before it
 * calls a node's hooks, has it wait for what the gradients come from, and has the caller's wait for
 * it in the end. So both hooks and forward ask the same.
 *
 * <p>Has not run on a GPU yet.
 */
final class CurrentStream {
  private CurrentStream() {}

  /** Has the replica enqueue behind what this thread has given libtorch for the tensor's device. */
  static void use(Replica replica, Tensor tensor) {
    if (tensor.is_cuda()) {
      try (Device device = tensor.device()) {
        Cuda.use(replica, device.index());
      }
    }
  }

  /** Loaded only with a tensor on a GPU: libtorch's jar for the CPU has no such library. */
  private static final class Cuda {
    static void use(Replica replica, byte ordinal) {
      try (CUDAStream current = torch_cuda.getCurrentCUDAStream(ordinal);
          CUstream_st handle = current.stream()) {
        // JavaCPP says null for 0, which is the legacy default stream, and libtorch's as well.
        replica.useStream(handle == null ? 0 : handle.address());
      }
    }
  }
}
