package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceMemoryException;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.bytedeco.cuda.cudart.cudaPointerAttributes;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.Pointer;

/** A GPU's memory: which addresses are its own, and what is asked for and given back. */
final class CudaMemory {
  private final String id;
  private final int ordinal;
  private final CurrentDevice current;
  private final cudaPointerAttributes attributes = new cudaPointerAttributes().retainReference();

  /** Memory of calls that failed later: freeing waits for the device, and that for its peers. */
  private final Queue<Long> unclaimed = new ConcurrentLinkedQueue<>();

  /**
   * @param id of the device, for messages
   */
  CudaMemory(String id, int ordinal, CurrentDevice current) {
    this.id = id;
    this.ordinal = ordinal;
    this.current = current;
  }

  /** As {@link CudaDevice#requireReachable}. */
  synchronized void requireReachable(long address) {
    int previous = current.enter();
    try {
      current.check(
          cudart.cudaPointerGetAttributes(attributes, new Address(address)),
          "cudaPointerGetAttributes");
    } finally {
      current.leave(previous);
    }
    int type = attributes.type();
    if (type == cudart.cudaMemoryTypeManaged) {
      return;
    }
    if (type != cudart.cudaMemoryTypeDevice) {
      throw new IllegalArgumentException(
          "address 0x%x is not memory of %s: cudaPointerGetAttributes says %s"
              .formatted(
                  address,
                  id,
                  type == cudart.cudaMemoryTypeHost
                      ? "cudaMemoryTypeHost"
                      : "cudaMemoryTypeUnregistered"));
    }
    if (attributes.device() != ordinal) {
      throw new IllegalArgumentException(
          "address 0x%x is not memory of %s: cudaPointerGetAttributes says gpu:%d"
              .formatted(address, id, attributes.device()));
    }
  }

  /**
   * @param bytes more than 0
   * @throws DeviceMemoryException if the device has not that much
   */
  long allocate(long bytes) {
    Pointer memory = new Address(0);
    try {
      int previous = current.enter();
      try {
        int error = cudart.cudaMalloc(memory, bytes);
        String call = "cudaMalloc of " + bytes + " bytes";
        if (error == cudart.cudaErrorMemoryAllocation) {
          cudart.cudaGetLastError();
          throw new DeviceMemoryException(id, call, error, CudaRuntime.describe(error));
        }
        current.check(error, call);
      } finally {
        current.leave(previous);
      }
    } catch (DeviceException e) {
      unclaimed.add(memory.address());
      throw e;
    }
    return memory.address();
  }

  /** Gives back what {@link #allocate} returned; 0 is allowed. Waits for the device. */
  void free(long address) {
    if (address != 0) {
      current.release(
          List.of(() -> current.check(cudart.cudaFree(new Address(address)), "cudaFree")));
    }
  }

  /** Gives back what no caller knows of. */
  void close() {
    Cleanup.runAll(unclaimed.stream().<Runnable>map(address -> () -> free(address)).toList());
  }
}
