package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.pytorch.ReplicaThreads;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntConsumer;
import java.util.function.IntToDoubleFunction;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;

/**
 * The first GPUs, each a part of this place with a replica and a thread of its own. Calls are
 * captured into graphs, which go through all sets: their times, by CUDA events, are the devices'
 * alone.
 *
 * <p>Each thread captures and launches its own device's graphs: NCCL may deadlock where one thread
 * does so for several. Events of two devices cannot be compared. So a time is the longest of those
 * that the devices' own events say of the same launches. A replica that is ahead has begun its time
 * when it waits for the others in its first exchange: the longest is that from the first replica's
 * start to the last one's end, but for the microseconds between the threads' starts. A sample takes
 * a millisecond or more.
 */
final class GpuPlace implements Place {
  /** In a graph at least, so that its launch counts for little. */
  private static final int CALLS = 32;

  private static final double MICROSECONDS = 1e3;
  private static final double NANOS_OF_MILLISECOND = 1e6;

  private final int calls;
  private final long cacheBytes;
  private final ReplicaGroup group;
  private final List<Cuda.Stream> streams = new ArrayList<>();
  private final Map<Long, Cuda.Memory> memory = new HashMap<>();

  /**
   * @throws RuntimeException with the reason, if there are not as many GPUs that the library can
   *     use
   */
  GpuPlace(int replicas) {
    this(replicas, CALLS, -1);
    each(part -> streams.get(part).raiseClocks());
  }

  /**
   * For GPUs that look otherwise.
   *
   * @param calls in a graph at least
   * @param cacheBytes of each; negative: the first one's own
   */
  GpuPlace(int replicas, int calls, long cacheBytes) {
    this.calls = calls;
    group = ReplicaGroup.gpus(IntStream.range(0, replicas).toArray());
    for (Replica replica : group.replicas()) {
      Cuda.Stream stream = on(replica.rank(), Cuda.Stream::new);
      streams.add(stream);
      replica.useStream(stream.address());
    }
    this.cacheBytes = cacheBytes < 0 ? Cuda.attribute(cudart.cudaDevAttrL2CacheSize) : cacheBytes;
  }

  /** With the part's device as this thread's current one. */
  private static <T> T on(int part, Supplier<T> work) {
    int before = Cuda.device();
    Cuda.setDevice(part);
    try {
      return work.get();
    } finally {
      Cuda.setDevice(before);
    }
  }

  @Override
  public ReplicaGroup group() {
    return group;
  }

  @Override
  public int parts() {
    return streams.size();
  }

  @Override
  public int threads() {
    return parts();
  }

  @Override
  public long cacheBytes() {
    return cacheBytes;
  }

  @Override
  public long allocate(int part, long bytes) {
    Cuda.Memory allocated = on(part, () -> new Cuda.Memory(bytes));
    memory.put(allocated.address(), allocated);
    return allocated.address();
  }

  @Override
  public void free(int part, long address) {
    streams.get(part).synchronize();
    memory.remove(address).close();
  }

  @Override
  public void fill(int part, long address, int value, long bytes) {
    on(
        part,
        () -> {
          streams.get(part).fill(address, value, bytes);
          return null;
        });
  }

  @Override
  public void write(int part, long address, ByteBuffer values) {
    streams.get(part).synchronize();
    Cuda.copy(address, new BytePointer(values.rewind()), values.capacity());
  }

  @Override
  public ByteBuffer read(int part, long address, long bytes) {
    ByteBuffer values = ByteBuffer.allocateDirect(Math.toIntExact(bytes));
    streams.get(part).synchronize();
    Cuda.copy(new BytePointer(values), address, bytes);
    return values;
  }

  @Override
  public List<Copy> copies() {
    return List.of((part, to, from, bytes) -> streams.get(part).copy(to, from, bytes));
  }

  /** PyTorch has processes of its own: {@link TorchProcess}. */
  @Override
  public List<Peer> peers() {
    return List.of();
  }

  /** Spins until all threads are there: waking one up takes as long as a small layer. */
  @Override
  public void each(IntConsumer work) {
    if (parts() == 1) {
      work.accept(0);
      return;
    }
    AtomicInteger missing = new AtomicInteger(parts());
    ReplicaThreads.run(
        group,
        replica -> {
          try {
            Cuda.setDevice(replica.rank());
          } finally {
            missing.decrementAndGet(); // also of a thread that fails, for which the others wait
          }
          while (missing.get() > 0) {
            Thread.yield();
          }
          work.accept(replica.rank());
        });
  }

  /** Of what {@code nanos} returns for each part. */
  private double longest(IntToDoubleFunction nanos) {
    double[] ofParts = new double[parts()];
    each(part -> ofParts[part] = nanos.applyAsDouble(part));
    return Arrays.stream(ofParts).max().orElseThrow();
  }

  @Override
  public List<Times> time(int sets, List<Way.Call> compared) {
    int rotations = (calls + sets - 1) / sets;
    try (Graphs graphs = new Graphs()) {
      each(part -> graphs.capture(part, rotations * sets, sets, compared));
      List<IntConsumer> launches =
          IntStream.range(0, compared.size())
              .<IntConsumer>mapToObj(call -> set -> graphs.launch(call))
              .toList();
      return Sampler.run(graphs, 1, launches).stream()
          .map(times -> times.of(rotations * sets))
          .toList();
    }
  }

  /**
   * Each part's graphs, one for each call, and nanoseconds between two events of each device around
   * what is launched.
   */
  private final class Graphs implements Clock, AutoCloseable {
    private final List<List<Cuda.Graph>> ofParts = new ArrayList<>();
    private final List<Cuda.Event> begin = new ArrayList<>();
    private final List<Cuda.Event> end = new ArrayList<>();

    /** What is to be launched, in order: each part's thread then does so without the others. */
    private final List<Integer> launches = new ArrayList<>();

    Graphs() {
      for (int part = 0; part < parts(); part++) {
        ofParts.add(new ArrayList<>());
        begin.add(on(part, Cuda.Event::new));
        end.add(on(part, Cuda.Event::new));
      }
    }

    void capture(int part, int times, int sets, List<Way.Call> compared) {
      for (Way.Call call : compared) {
        call.run(part, 0); // what is captured has to have run once
        ofParts
            .get(part)
            .add(
                streams
                    .get(part)
                    .capture(
                        () -> IntStream.range(0, times).forEach(i -> call.run(part, i % sets))));
      }
    }

    void launch(int call) {
      launches.add(call);
    }

    @Override
    public double nanos(Runnable work) {
      launches.clear();
      work.run();
      return longest(this::nanos);
    }

    private double nanos(int part) {
      Cuda.Stream stream = streams.get(part);
      stream.record(begin.get(part));
      launches.forEach(call -> stream.launch(ofParts.get(part).get(call)));
      stream.record(end.get(part));
      stream.synchronize();
      return begin.get(part).millisecondsTo(end.get(part)) * NANOS_OF_MILLISECOND;
    }

    @Override
    public void close() {
      streams.forEach(Cuda.Stream::synchronize);
      ofParts.forEach(graphs -> graphs.forEach(Cuda.Graph::close));
      begin.forEach(Cuda.Event::close);
      end.forEach(Cuda.Event::close);
    }
  }

  @Override
  public double microsecondsToEnqueue(int sets, Way.Call call) {
    double nanos =
        longest(
            part -> {
              streams.get(part).synchronize();
              long begin = System.nanoTime();
              for (int i = 0; i < calls; i++) {
                call.run(part, i % sets);
              }
              return System.nanoTime() - begin;
            });
    streams.forEach(Cuda.Stream::synchronize);
    return nanos / MICROSECONDS / calls;
  }

  @Override
  public void close() {
    group.replicas().forEach(Replica::useOwnStream);
    streams.forEach(Cuda.Stream::synchronize);
    group.close();
    List.copyOf(memory.values()).forEach(Cuda.Memory::close);
    streams.forEach(Cuda.Stream::close);
  }
}
