package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.cuda.Cuda;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;

/**
 * The first GPU, with one replica. Calls are captured into graphs, which go through all sets: their
 * times, by CUDA events, are the device's alone.
 */
final class GpuPlace implements Place {
  /** In a graph at least, so that its launch counts for little. */
  private static final int CALLS = 32;

  private static final double MICROSECONDS = 1e3;
  private static final double NANOS_OF_MILLISECOND = 1e6;

  private final int calls;
  private final long cacheBytes;
  private final ReplicaGroup group;
  private final Replica replica;
  private final Cuda.Stream stream;
  private final Map<Long, Cuda.Memory> memory = new HashMap<>();

  /**
   * @throws RuntimeException with the reason, if there is no GPU that the library can use
   */
  GpuPlace() {
    this(CALLS, -1);
    stream.raiseClocks();
  }

  /**
   * For GPUs that look otherwise.
   *
   * @param calls in a graph at least
   * @param cacheBytes negative: the device's own
   */
  GpuPlace(int calls, long cacheBytes) {
    this.calls = calls;
    group = ReplicaGroup.gpus(0);
    replica = group.replica(0);
    stream = new Cuda.Stream();
    replica.useStream(stream.address());
    this.cacheBytes = cacheBytes < 0 ? Cuda.attribute(cudart.cudaDevAttrL2CacheSize) : cacheBytes;
  }

  @Override
  public ReplicaGroup group() {
    return group;
  }

  @Override
  public int threads() {
    return 1;
  }

  @Override
  public long cacheBytes() {
    return cacheBytes;
  }

  @Override
  public long allocate(long bytes) {
    Cuda.Memory allocated = new Cuda.Memory(bytes);
    memory.put(allocated.address(), allocated);
    return allocated.address();
  }

  @Override
  public void free(long address) {
    stream.synchronize();
    memory.remove(address).close();
  }

  @Override
  public void fill(long address, int value, long bytes) {
    stream.fill(address, value, bytes);
  }

  @Override
  public void write(long address, ByteBuffer values) {
    stream.synchronize();
    Cuda.copy(address, new BytePointer(values.rewind()), values.capacity());
  }

  @Override
  public ByteBuffer read(long address, long bytes) {
    ByteBuffer values =
        ByteBuffer.allocateDirect(Math.toIntExact(bytes)).order(ByteOrder.nativeOrder());
    stream.synchronize();
    Cuda.copy(new BytePointer(values), address, bytes);
    return values;
  }

  @Override
  public List<Copy> copies() {
    return List.of(stream::copy);
  }

  /** PyTorch has a process of its own: {@link TorchProcess}. */
  @Override
  public List<Peer> peers() {
    return List.of();
  }

  @Override
  public List<Times> time(int sets, List<IntConsumer> compared) {
    int rotations = (calls + sets - 1) / sets;
    List<Cuda.Graph> graphs = new ArrayList<>();
    try (StreamClock clock = new StreamClock(stream)) {
      for (IntConsumer call : compared) {
        call.accept(0); // what is captured has to have run once
        graphs.add(
            stream.capture(
                () -> IntStream.range(0, rotations * sets).forEach(i -> call.accept(i % sets))));
      }
      List<IntConsumer> launches =
          graphs.stream().<IntConsumer>map(graph -> set -> stream.launch(graph)).toList();
      return Sampler.run(clock, 1, launches).stream()
          .map(times -> times.of(rotations * sets))
          .toList();
    } finally {
      stream.synchronize();
      graphs.forEach(Cuda.Graph::close);
    }
  }

  /** Nanoseconds between two events around what is enqueued. */
  private record StreamClock(Cuda.Stream stream, Cuda.Event begin, Cuda.Event end)
      implements Clock, AutoCloseable {
    StreamClock(Cuda.Stream stream) {
      this(stream, new Cuda.Event(), new Cuda.Event());
    }

    @Override
    public double nanos(Runnable work) {
      stream.record(begin);
      work.run();
      stream.record(end);
      stream.synchronize();
      return begin.millisecondsTo(end) * NANOS_OF_MILLISECOND;
    }

    @Override
    public void close() {
      begin.close();
      end.close();
    }
  }

  @Override
  public double microsecondsToEnqueue(int sets, IntConsumer call) {
    stream.synchronize();
    long begin = System.nanoTime();
    for (int i = 0; i < calls; i++) {
      call.accept(i % sets);
    }
    double nanos = System.nanoTime() - begin;
    stream.synchronize();
    return nanos / MICROSECONDS / calls;
  }

  @Override
  public void close() {
    replica.useOwnStream();
    stream.synchronize();
    group.close();
    List.copyOf(memory.values()).forEach(Cuda.Memory::close);
    stream.close();
  }
}
