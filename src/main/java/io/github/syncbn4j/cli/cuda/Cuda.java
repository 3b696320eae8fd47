package io.github.syncbn4j.cli.cuda;

import io.github.syncbn4j.device.Address;
import org.bytedeco.cuda.cudart.CUevent_st;
import org.bytedeco.cuda.cudart.CUgraphExec_st;
import org.bytedeco.cuda.cudart.CUgraph_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.Pointer;

/**
 * CUDA as a program has it that uses the library: devices, streams, memory, events and graphs of
 * its own. Every call is checked.
 */
public final class Cuda {
  private static final long CLOCKS_BYTES = 64 << 20;
  private static final long CLOCKS_NANOS = 1_000_000_000;

  private Cuda() {}

  /** The calling thread's current device. */
  public static int device() {
    int[] device = new int[1];
    check(cudart.cudaGetDevice(device), "cudaGetDevice");
    return device[0];
  }

  public static void setDevice(int device) {
    check(cudart.cudaSetDevice(device), "cudaSetDevice");
  }

  public static int attribute(int attribute) {
    int[] value = new int[1];
    check(cudart.cudaDeviceGetAttribute(value, attribute, device()), "cudaDeviceGetAttribute");
    return value[0];
  }

  /** From the host to the device; returns when that is done. */
  public static void copy(long to, Pointer from, long bytes) {
    check(
        cudart.cudaMemcpy(new Address(to), from, bytes, cudart.cudaMemcpyHostToDevice),
        "cudaMemcpy");
  }

  /** From the device to the host; returns when that is done. */
  public static void copy(Pointer to, long from, long bytes) {
    check(
        cudart.cudaMemcpy(to, new Address(from), bytes, cudart.cudaMemcpyDeviceToHost),
        "cudaMemcpy");
  }

  /** Memory of the caller's own on the current device. */
  public static final class Memory implements AutoCloseable {
    private final Address address = new Address(0);
    private final long bytes;

    public Memory(long bytes) {
      this.bytes = bytes;
      check(cudart.cudaMalloc(address, bytes), "cudaMalloc of " + bytes + " bytes");
    }

    public long address() {
      return address.address();
    }

    public long bytes() {
      return bytes;
    }

    @Override
    public void close() {
      check(cudart.cudaFree(address), "cudaFree");
    }
  }

  /** A stream of the caller's own on the current device; it waits for no other. */
  public static final class Stream implements AutoCloseable {
    private final CUstream_st handle = new CUstream_st();

    public Stream() {
      check(
          cudart.cudaStreamCreateWithFlags(handle, cudart.cudaStreamNonBlocking),
          "cudaStreamCreateWithFlags");
    }

    /** As the library takes it. */
    public long address() {
      return handle.address();
    }

    public void synchronize() {
      check(cudart.cudaStreamSynchronize(handle), "cudaStreamSynchronize");
    }

    /** Enqueues filling. */
    public void fill(long address, int value, long bytes) {
      check(cudart.cudaMemsetAsync(new Address(address), value, bytes, handle), "cudaMemsetAsync");
    }

    /** Enqueues a copy within the device. */
    public void copy(long to, long from, long bytes) {
      check(
          cudart.cudaMemcpyAsync(
              new Address(to), new Address(from), bytes, cudart.cudaMemcpyDeviceToDevice, handle),
          "cudaMemcpyAsync");
    }

    /** Keeps the device busy for a second: an idle GPU's clocks are low, and rise with the work. */
    public void raiseClocks() {
      try (Memory memory = new Memory(CLOCKS_BYTES)) {
        long start = System.nanoTime();
        while (System.nanoTime() - start < CLOCKS_NANOS) {
          fill(memory.address(), 0, memory.bytes());
          synchronize();
        }
      }
    }

    /**
     * What {@code work} enqueues on this stream, as a graph; none of it runs. The capture is over
     * when this returns, also where it throws.
     */
    public Graph capture(Runnable work) {
      check(
          cudart.cudaStreamBeginCapture(handle, cudart.cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
      CUgraph_st graph = new CUgraph_st();
      int end;
      try {
        work.run();
      } finally {
        end = cudart.cudaStreamEndCapture(handle, graph);
        cudart.cudaGetLastError(); // of a capture that was given up
      }
      check(end, "cudaStreamEndCapture");
      return new Graph(graph);
    }

    public void launch(Graph graph) {
      check(cudart.cudaGraphLaunch(graph.executable, handle), "cudaGraphLaunch");
    }

    public void record(Event event) {
      check(cudart.cudaEventRecord(event.handle, handle), "cudaEventRecord");
    }

    @Override
    public void close() {
      check(cudart.cudaStreamDestroy(handle), "cudaStreamDestroy");
    }
  }

  /** A captured graph, ready to be launched any number of times. */
  public static final class Graph implements AutoCloseable {
    private final CUgraph_st graph;
    private final CUgraphExec_st executable = new CUgraphExec_st();

    private Graph(CUgraph_st graph) {
      this.graph = graph;
      int error = cudart.cudaGraphInstantiate(executable, graph, 0);
      if (error != cudart.cudaSuccess) {
        cudart.cudaGraphDestroy(graph);
      }
      check(error, "cudaGraphInstantiate");
    }

    @Override
    public void close() {
      check(cudart.cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
      check(cudart.cudaGraphDestroy(graph), "cudaGraphDestroy");
    }
  }

  /** A point in a stream, whose time the device notes. */
  public static final class Event implements AutoCloseable {
    private final CUevent_st handle = new CUevent_st();

    public Event() {
      check(cudart.cudaEventCreate(handle), "cudaEventCreate");
    }

    /** Milliseconds from this to a later one. */
    public double millisecondsTo(Event later) {
      float[] milliseconds = new float[1];
      check(
          cudart.cudaEventElapsedTime(milliseconds, handle, later.handle), "cudaEventElapsedTime");
      return milliseconds[0];
    }

    @Override
    public void close() {
      check(cudart.cudaEventDestroy(handle), "cudaEventDestroy");
    }
  }

  private static void check(int error, String call) {
    if (error != cudart.cudaSuccess) {
      cudart.cudaGetLastError();
      throw new IllegalStateException(
          call + " failed: " + cudart.cudaGetErrorName(error).getString());
    }
  }
}
