package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.Address;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntConsumer;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;

/** The host's memory and processors. */
final class CpuPlace implements Place {
  private static final Path CACHES = Path.of("/sys/devices/system/cpu/cpu0/cache");
  private static final long CACHE_WHERE_UNKNOWN = 32L << 20;

  private final int threads;
  private final long cacheBytes;
  private final Waits waits;
  private final NativeCopy copy;
  private final ReplicaGroup group;

  CpuPlace(int replicas, int threads) {
    this(replicas, threads, lastLevelCache(), new Waits());
  }

  /** For tests: of a machine that may look otherwise. */
  CpuPlace(int replicas, int threads, long cacheBytes, Waits waits) {
    this.threads = threads;
    this.cacheBytes = cacheBytes;
    this.waits = waits;
    copy = new NativeCopy(threads);
    group = ReplicaGroup.builder().cpus(replicas).threads(threads).build();
  }

  /** In bytes. */
  private static long lastLevelCache() {
    long largest = 0;
    for (int index = 0; Files.exists(CACHES.resolve("index" + index)); index++) {
      try {
        String size = Files.readString(CACHES.resolve("index" + index).resolve("size")).strip();
        largest = Math.max(largest, Long.parseLong(size.replace("K", "")) << 10);
      } catch (IOException | NumberFormatException e) {
        // It does not say; another index may.
      }
    }
    return largest == 0 ? CACHE_WHERE_UNKNOWN : largest;
  }

  @Override
  public ReplicaGroup group() {
    return group;
  }

  @Override
  public int threads() {
    return threads;
  }

  @Override
  public long cacheBytes() {
    return cacheBytes;
  }

  @Override
  public int parts() {
    return 1;
  }

  @Override
  public long allocate(int part, long bytes) {
    return NativeCopy.allocated(bytes);
  }

  @Override
  public void free(int part, long address) {
    NativeCopy.free(address);
  }

  @Override
  public void fill(int part, long address, int value, long bytes) {
    Pointer.memset(new Address(address), value, bytes);
  }

  @Override
  public void write(int part, long address, ByteBuffer values) {
    read(part, address, values.capacity()).put(values.rewind());
  }

  @Override
  public ByteBuffer read(int part, long address, long bytes) {
    return new BytePointer(new Address(address)).capacity(bytes).asByteBuffer();
  }

  @Override
  public List<Copy> copies() {
    return Arrays.stream(NativeCopy.Kind.values())
        .<Copy>map(kind -> (part, to, from, bytes) -> copy.run(kind, to, from, bytes))
        .toList();
  }

  @Override
  public List<Peer> peers() {
    return List.of(Peer.values());
  }

  @Override
  public void each(IntConsumer work) {
    work.accept(0);
  }

  @Override
  public List<Times> time(int sets, List<Way.Call> calls) {
    return Sampler.run(
        waits, sets, calls.stream().<IntConsumer>map(call -> set -> call.run(0, set)).toList());
  }

  @Override
  public double microsecondsToEnqueue(int sets, Way.Call call) {
    return Double.NaN;
  }

  @Override
  public void close() {
    group.close();
    copy.close();
  }
}
