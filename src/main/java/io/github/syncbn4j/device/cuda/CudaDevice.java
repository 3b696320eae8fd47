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
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.cuda.cudart.CUevent_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;

/**
 * A GPU with a stream of its own, or one of the caller's. Every call leaves the calling thread's
 * current device as it found it.
 */
final class CudaDevice implements Device {
  private final int ordinal;
  private final String id;
  private final CurrentDevice current;
  private final CudaMemory memory;

  // Null, or none, until the constructor comes to them.
  private CUstream_st own;
  private CUevent_st switched;
  private Pointer controlMemory;
  private Control control;

  /** Where everything is enqueued. */
  private CUstream_st stream;

  private boolean closed;

  CudaDevice(int ordinal) {
    this.ordinal = ordinal;
    this.id = "gpu:" + ordinal;
    this.current = new CurrentDevice(id, ordinal);
    this.memory = new CudaMemory(id, ordinal, current);
    try {
      int previous = enter();
      try {
        open();
      } finally {
        leave(previous);
      }
    } catch (RuntimeException e) {
      Cleanup.after(e, this::close);
      throw e;
    }
  }

  private void open() {
    CUstream_st newStream = new CUstream_st().retainReference();
    check(
        cudart.cudaStreamCreateWithFlags(newStream, cudart.cudaStreamNonBlocking),
        "cudaStreamCreateWithFlags");
    stream = own = newStream;
    CUevent_st newEvent = new CUevent_st().retainReference();
    check(
        cudart.cudaEventCreateWithFlags(newEvent, cudart.cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
    switched = newEvent;
    int bytes = new syncbn_control().sizeof();
    Pointer host = new Address(0);
    check(
        cudart.cudaHostAlloc(
            host, bytes, cudart.cudaHostAllocMapped | cudart.cudaHostAllocPortable),
        "cudaHostAlloc");
    controlMemory = host;
    Pointer.memset(host, 0, bytes);
    Pointer device = new Address(0);
    check(cudart.cudaHostGetDevicePointer(device, host, 0), "cudaHostGetDevicePointer");
    control = new Control(new syncbn_control(host), device.address());
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
  public void useStream(long address) {
    switchTo(new CUstream_st(new Address(address)));
  }

  @Override
  public void useOwnStream() {
    switchTo(own);
  }

  private void switchTo(CUstream_st next) {
    if (next.address() == stream.address()) {
      return;
    }
    int previous = enter();
    try {
      int[] device = new int[1];
      check(cudart.cudaStreamGetDevice(next, device), "cudaStreamGetDevice");
      if (device[0] != ordinal) {
        throw new IllegalArgumentException(
            "stream 0x%x is not of %s: cudaStreamGetDevice says gpu:%d"
                .formatted(next.address(), id, device[0]));
      }
      if (isCapturing(stream) || isCapturing(next)) {
        throw new IllegalStateException(
            "%s cannot go to another stream while either is captured into a graph: do it before"
                .formatted(id));
      }
      check(cudart.cudaEventRecord(switched, stream), "cudaEventRecord");
      check(cudart.cudaStreamWaitEvent(next, switched, 0), "cudaStreamWaitEvent");
      stream = next;
    } finally {
      leave(previous);
    }
  }

  @Override
  public boolean isCapturing() {
    int previous = enter();
    try {
      return isCapturing(stream);
    } finally {
      leave(previous);
    }
  }

  private boolean isCapturing(CUstream_st ofStream) {
    int[] status = CurrentDevice.answer();
    check(cudart.cudaStreamIsCapturing(ofStream, status), "cudaStreamIsCapturing");
    return status[0] != cudart.cudaStreamCaptureStatusNone;
  }

  @Override
  public void requireReachable(long address) {
    memory.requireReachable(address);
  }

  @Override
  public long allocate(long bytes) {
    if (bytes == 0) {
      return 0;
    }
    if (isCapturing()) {
      throw new IllegalStateException(
          "%s cannot allocate %d bytes while its stream is captured into a graph: take such a step before"
              .formatted(id, bytes));
    }
    return memory.allocate(bytes);
  }

  @Override
  public void free(long address) {
    memory.free(address);
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
    int previous = enter();
    try {
      int error = cudart.cudaStreamQuery(stream);
      if (error == cudart.cudaErrorNotReady) {
        return false;
      }
      check(error, "cudaStreamQuery");
      return true;
    } finally {
      leave(previous);
    }
  }

  /** Asks for its event, since a stream may be another thread's to capture or to leave. */
  @Override
  public void requireAlive() {
    int previous = enter();
    try {
      int error = cudart.cudaEventQuery(switched);
      if (error != cudart.cudaErrorNotReady) {
        check(error, "cudaEventQuery");
      }
    } finally {
      leave(previous);
    }
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
    int status = CudaKernels.syncbn_cuda_stats(args.stream(stream()));
    leave(previous);
    checkKernel(status, "syncbn_cuda_stats");
  }

  @Override
  public void normalize(syncbn_normalize_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_normalize(args.stream(stream()));
    leave(previous);
    checkKernel(status, "syncbn_cuda_normalize");
  }

  @Override
  public void backwardReduce(syncbn_backward_reduce_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_backward_reduce(args.stream(stream()));
    leave(previous);
    checkKernel(status, "syncbn_cuda_backward_reduce");
  }

  @Override
  public void backwardInput(syncbn_backward_input_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_backward_input(args.stream(stream()));
    leave(previous);
    checkKernel(status, "syncbn_cuda_backward_input");
  }

  @Override
  public void copy(syncbn_copy_args args) {
    int previous = enter();
    int status = CudaKernels.syncbn_cuda_copy(args.stream(stream()));
    leave(previous);
    checkKernel(status, "syncbn_cuda_copy");
  }

  /**
   * Releases its stream and control words, as far as there are any. What is enqueued must have
   * ended, or its collectives have been aborted.
   */
  void close() {
    if (closed) {
      return;
    }
    closed = true;
    List<Runnable> releases = new ArrayList<>();
    releases.add(memory::close);
    if (switched != null) {
      releases.add(() -> check(cudart.cudaEventDestroy(switched), "cudaEventDestroy"));
    }
    if (own != null) {
      releases.add(() -> check(cudart.cudaStreamDestroy(own), "cudaStreamDestroy"));
    }
    if (controlMemory != null) {
      releases.add(() -> check(cudart.cudaFreeHost(controlMemory), "cudaFreeHost"));
    }
    current.release(releases);
  }

  /** Makes this the thread's current device and returns the one before. */
  int enter() {
    return current.enter();
  }

  void leave(int previous) {
    current.leave(previous);
  }

  private void check(int error, String call) {
    current.check(error, call);
  }

  void checkKernel(int status, String call) {
    if (status != SYNCBN_OK) {
      try (BytePointer text = CudaKernels.syncbn_cuda_last_error()) {
        throw new DeviceException(id, call, status, text.getString());
      }
    }
  }
}
