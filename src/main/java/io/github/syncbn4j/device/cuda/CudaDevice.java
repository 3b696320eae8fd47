package io.github.syncbn4j.device.cuda;

import static io.github.syncbn4j.device.natives.CudaKernels.SYNCBN_OK;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Control;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.natives.CudaKernels;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_control;
import io.github.syncbn4j.device.natives.syncbn_copy_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.util.List;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;

/**
 * A GPU with a stream of its own. Every call leaves the calling thread's current device as it found
 * it.
 */
final class CudaDevice implements Device {
  private final int ordinal;
  private final String id;
  private final CUstream_st stream;
  private final Pointer controlMemory;
  private final Control control;
  private boolean closed;

  CudaDevice(int ordinal) {
    this.ordinal = ordinal;
    this.id = "gpu:" + ordinal;
    int previous = enter();
    try {
      stream = new CUstream_st();
      check(
          cudart.cudaStreamCreateWithFlags(stream, cudart.cudaStreamNonBlocking),
          "cudaStreamCreateWithFlags");
      Pointer host = new Address(0);
      try {
        int bytes = new syncbn_control().sizeof();
        check(
            cudart.cudaHostAlloc(
                host, bytes, cudart.cudaHostAllocMapped | cudart.cudaHostAllocPortable),
            "cudaHostAlloc");
        Pointer.memset(host, 0, bytes);
        Pointer device = new Address(0);
        check(cudart.cudaHostGetDevicePointer(device, host, 0), "cudaHostGetDevicePointer");
        control = new Control(new syncbn_control(host), device.address());
      } catch (DeviceException e) {
        if (!host.isNull()) {
          cudart.cudaFreeHost(host);
        }
        cudart.cudaStreamDestroy(stream);
        throw e;
      }
      controlMemory = host;
    } finally {
      leave(previous);
    }
  }

  int ordinal() {
    return ordinal;
  }

  CUstream_st streamPointer() {
    return stream;
  }

  @Override
  public String id() {
    return id;
  }

  @Override
  public String description() {
    return CudaRuntime.deviceName(ordinal);
  }

  @Override
  public String memorySpace() {
    return id;
  }

  @Override
  public long stream() {
    return stream.address();
  }

  @Override
  public long allocate(long bytes) {
    if (bytes == 0) {
      return 0;
    }
    int previous = enter();
    Pointer memory = new Address(0);
    int error = cudart.cudaMalloc(memory, bytes);
    if (error != cudart.cudaSuccess) {
      cudart.cudaGetLastError();
      leave(previous);
      throw new DeviceException(
          id, "cudaMalloc of " + bytes + " bytes", error, CudaRuntime.describe(error));
    }
    try {
      leave(previous);
    } catch (DeviceException e) {
      cudart.cudaFree(memory);
      throw e;
    }
    return memory.address();
  }

  @Override
  public void free(long address) {
    if (address != 0) {
      int previous = enter();
      try {
        check(cudart.cudaFree(new Address(address)), "cudaFree");
      } finally {
        leave(previous);
      }
    }
  }

  @Override
  public void zero(long address, long bytes) {
    if (bytes > 0) {
      int previous = enter();
      try {
        check(cudart.cudaMemsetAsync(new Address(address), 0, bytes, stream), "cudaMemsetAsync");
      } finally {
        leave(previous);
      }
    }
  }

  @Override
  public void copyFromHost(long address, Pointer host, long bytes) {
    copy(new Address(address), host, bytes, cudart.cudaMemcpyHostToDevice);
  }

  @Override
  public void copyToHost(Pointer host, long address, long bytes) {
    copy(host, new Address(address), bytes, cudart.cudaMemcpyDeviceToHost);
  }

  private void copy(Pointer to, Pointer from, long bytes, int kind) {
    if (bytes > 0) {
      int previous = enter();
      try {
        check(cudart.cudaMemcpyAsync(to, from, bytes, kind, stream), "cudaMemcpyAsync");
        check(cudart.cudaStreamSynchronize(stream), "cudaStreamSynchronize");
      } finally {
        leave(previous);
      }
    }
  }

  @Override
  public boolean isIdle() {
    int error = cudart.cudaStreamQuery(stream);
    if (error == cudart.cudaErrorNotReady) {
      return false;
    }
    check(error, "cudaStreamQuery");
    return true;
  }

  @Override
  public Control control() {
    return control;
  }

  @Override
  public long workspaceBytes(long channels) {
    return CudaKernels.syncbn_cuda_workspace_bytes(channels);
  }

  @Override
  public void stats(syncbn_stats_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_stats(args);
    leave(previous);
    checkKernel(status, "syncbn_cuda_stats");
  }

  @Override
  public void normalize(syncbn_normalize_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_normalize(args);
    leave(previous);
    checkKernel(status, "syncbn_cuda_normalize");
  }

  @Override
  public void backwardReduce(syncbn_backward_reduce_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_backward_reduce(args);
    leave(previous);
    checkKernel(status, "syncbn_cuda_backward_reduce");
  }

  @Override
  public void backwardInput(syncbn_backward_input_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_backward_input(args);
    leave(previous);
    checkKernel(status, "syncbn_cuda_backward_input");
  }

  @Override
  public void copy(syncbn_copy_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_copy(args);
    leave(previous);
    checkKernel(status, "syncbn_cuda_copy");
  }

  /** Releases stream and control words. The stream must be idle or its collectives aborted. */
  void close() {
    if (!closed) {
      closed = true;
      int previous = enter();
      try {
        Cleanup.runAll(
            List.of(
                () -> check(cudart.cudaStreamDestroy(stream), "cudaStreamDestroy"),
                () -> check(cudart.cudaFreeHost(controlMemory), "cudaFreeHost")));
      } finally {
        leave(previous);
      }
    }
  }

  /** Makes this the thread's current device and returns the one before. */
  int enter() {
    int[] current = new int[1];
    check(cudart.cudaGetDevice(current), "cudaGetDevice");
    if (current[0] != ordinal) {
      check(cudart.cudaSetDevice(ordinal), "cudaSetDevice");
    }
    return current[0];
  }

  void leave(int previous) {
    if (previous != ordinal) {
      check(cudart.cudaSetDevice(previous), "cudaSetDevice");
    }
  }

  private void check(int error, String call) {
    if (error != cudart.cudaSuccess) {
      cudart.cudaGetLastError();
      CudaRuntime.check(id, error, call);
    }
  }

  private void checkKernel(int status, String call) {
    if (status != SYNCBN_OK) {
      try (BytePointer text = CudaKernels.syncbn_cuda_last_error()) {
        throw new DeviceException(id, call, status, text.getString());
      }
    }
  }
}
