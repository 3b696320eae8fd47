package io.github.syncbn4j.device;

import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_copy_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.time.Duration;
import java.util.List;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import org.bytedeco.javacpp.Pointer;

/**
 * A group that reports each kernel and each exchange, in the order of the calls, before it is
 * enqueued.
 */
public final class TracedDeviceGroup implements DeviceGroup {
  private final DeviceGroup group;
  private final Consumer<String> trace;
  private final List<TracedDevice> devices;

  public TracedDeviceGroup(DeviceGroup group, Consumer<String> trace) {
    this.group = group;
    this.trace = trace;
    this.devices = group.devices().stream().map(device -> new TracedDevice(device, trace)).toList();
  }

  @Override
  public List<Device> devices() {
    return List.copyOf(devices);
  }

  @Override
  public int size() {
    return group.size();
  }

  @Override
  public int firstRank() {
    return group.firstRank();
  }

  private String id(int rank) {
    return devices.get(rank - firstRank()).id();
  }

  @Override
  public void exchange(Rows[] rows) {
    traceExchange(rows);
    group.exchange(rows);
  }

  private void traceExchange(Rows[] rows) {
    if (group.exchangeCall() != null) {
      for (Rows mine : rows) {
        trace.accept(
            "%-6s %s, %d float64 in place"
                .formatted(id(mine.rank()), group.exchangeCall(), mine.elements()));
      }
    }
  }

  @Override
  public boolean joins(int replicas) {
    return group.joins(replicas);
  }

  @Override
  public void forward(Halves<syncbn_stats_args, syncbn_normalize_args> halves, Rows[] rows) {
    long bytes = group.forwardOnChip(halves);
    if (bytes > 0) {
      syncbn_stats_args args = halves.first(0);
      devices.get(0).kernel("forward", args.outer(), args.channels(), args.inner(), bytes);
    } else {
      traceHalves(halves, rows, TracedDevice::trace, TracedDevice::trace);
    }
    group.forward(halves, rows);
  }

  @Override
  public void backward(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves, Rows[] rows) {
    long bytes = group.backwardOnChip(halves);
    if (bytes > 0) {
      syncbn_backward_reduce_args args = halves.first(0);
      devices.get(0).kernel("backward", args.outer(), args.channels(), args.inner(), bytes);
    } else {
      traceHalves(halves, rows, TracedDevice::trace, TracedDevice::trace);
    }
    group.backward(halves, rows);
  }

  private <A extends Pointer, B extends Pointer> void traceHalves(
      Halves<A, B> halves,
      Rows[] rows,
      BiConsumer<TracedDevice, A> first,
      BiConsumer<TracedDevice, B> second) {
    for (int i = 0; i < halves.replicas(); i++) {
      first.accept(devices.get(i), halves.first(i));
    }
    if (size() > 1) {
      traceExchange(rows);
    }
    for (int i = 0; i < halves.replicas(); i++) {
      second.accept(devices.get(i), halves.second(i));
    }
  }

  @Override
  public void run(Collective[] parts) {
    for (Collective part : parts) {
      trace.accept(
          "%-6s %s, %d elements of %d bytes in place"
              .formatted(
                  id(part.rank()), group.callOf(part), part.elements(), part.elementBytes()));
    }
    group.run(parts);
  }

  @Override
  public String callOf(Collective part) {
    return group.callOf(part);
  }

  @Override
  public String exchangeCall() {
    return group.exchangeCall();
  }

  @Override
  public DeviceGroup split(int color, int key, Duration timeout) {
    return new TracedDeviceGroup(group.split(color, key, timeout), trace);
  }

  @Override
  public void abort() {
    group.abort();
  }

  @Override
  public void close() {
    group.close();
  }

  private record TracedDevice(Device device, Consumer<String> trace) implements Device {
    private void kernel(String name, long outer, long channels, long inner) {
      trace.accept(
          "%-6s kernel %s, x [%d, %d, %d]".formatted(device.id(), name, outer, channels, inner));
    }

    private void kernel(String name, long outer, long channels, long inner, long bytesOnChip) {
      trace.accept(
          "%-6s kernel %s, x [%d, %d, %d], %d bytes on the chip"
              .formatted(device.id(), name, outer, channels, inner, bytesOnChip));
    }

    private void trace(syncbn_stats_args args) {
      kernel("stats", args.outer(), args.channels(), args.inner());
    }

    @Override
    public void stats(syncbn_stats_args args) {
      trace(args);
      device.stats(args);
    }

    private void trace(syncbn_normalize_args args) {
      kernel("normalize", args.outer(), args.channels(), args.inner());
    }

    @Override
    public void normalize(syncbn_normalize_args args) {
      trace(args);
      device.normalize(args);
    }

    private void trace(syncbn_backward_reduce_args args) {
      kernel("backward_reduce", args.outer(), args.channels(), args.inner());
    }

    @Override
    public void backwardReduce(syncbn_backward_reduce_args args) {
      trace(args);
      device.backwardReduce(args);
    }

    private void trace(syncbn_backward_input_args args) {
      kernel("backward_input", args.outer(), args.channels(), args.inner());
    }

    @Override
    public void backwardInput(syncbn_backward_input_args args) {
      trace(args);
      device.backwardInput(args);
    }

    @Override
    public void copy(syncbn_copy_args args) {
      trace.accept("%-6s kernel copy".formatted(device.id()));
      device.copy(args);
    }

    @Override
    public String id() {
      return device.id();
    }

    @Override
    public String description() {
      return device.description();
    }

    @Override
    public String memorySpace() {
      return device.memorySpace();
    }

    @Override
    public long stream() {
      return device.stream();
    }

    @Override
    public void useStream(long stream) {
      device.useStream(stream);
    }

    @Override
    public void useOwnStream() {
      device.useOwnStream();
    }

    @Override
    public boolean isCapturing() {
      return device.isCapturing();
    }

    @Override
    public void requireReachable(long address) {
      device.requireReachable(address);
    }

    @Override
    public long allocate(long bytes) {
      return device.allocate(bytes);
    }

    @Override
    public void free(long address) {
      device.free(address);
    }

    @Override
    public void zero(long address, long bytes) {
      device.zero(address, bytes);
    }

    @Override
    public void copyFromHost(long address, Pointer host, long bytes) {
      device.copyFromHost(address, host, bytes);
    }

    @Override
    public void copyToHost(Pointer host, long address, long bytes) {
      device.copyToHost(host, address, bytes);
    }

    @Override
    public boolean isIdle() {
      return device.isIdle();
    }

    @Override
    public void requireAlive() {
      device.requireAlive();
    }

    @Override
    public Control control() {
      return device.control();
    }

    @Override
    public long workspaceBytes(long channels) {
      return device.workspaceBytes(channels);
    }
  }
}
