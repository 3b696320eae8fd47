package io.github.syncbn4j.device.cpu;

import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.Halves;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.CpuKernels;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.time.Duration;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Replicas on the CPU of this process: one pool of threads for all of them, rows exchanged by
 * copying.
 */
public final class CpuDeviceGroup implements DeviceGroup {
  private final long pool;
  private final List<Device> devices;
  private final Meeting<Rows> exchanges;
  private final Meeting<Collective> collectives;
  private boolean closed;

  /**
   * @param replicas at least 1
   * @param threads of the pool, 1 to 256, the calling thread included
   */
  public CpuDeviceGroup(int replicas, int threads) {
    CpuRuntime.ensureAvailable();
    long[] handle = new long[1];
    CpuDevice.check(
        "cpu", CpuKernels.syncbn_cpu_pool_create(threads, handle), "syncbn_cpu_pool_create");
    this.pool = handle[0];
    this.devices =
        IntStream.range(0, replicas).<Device>mapToObj(rank -> new CpuDevice(rank, pool)).toList();
    this.exchanges =
        new Meeting<>(
            new Rows[replicas], Rows::rank, CpuDeviceGroup::conflict, HostCollectives::copyRows);
    this.collectives =
        new Meeting<>(
            new Collective[replicas],
            Collective::rank,
            CpuDeviceGroup::conflict,
            HostCollectives::run);
  }

  @Override
  public List<Device> devices() {
    return devices;
  }

  @Override
  public int size() {
    return devices.size();
  }

  @Override
  public int firstRank() {
    return 0;
  }

  @Override
  public void exchange(Rows[] rows) throws CollectiveException {
    exchanges.meet(rows);
  }

  @Override
  public boolean joins(int replicas) {
    return replicas == devices.size();
  }

  @Override
  public void forward(Halves<syncbn_stats_args, syncbn_normalize_args> halves, Rows[] rows) {
    for (int i = 0; i < halves.replicas(); i++) {
      halves.first(i).stream(pool);
      halves.second(i).stream(pool);
    }
    int status =
        CpuKernels.syncbn_cpu_forward(
            halves.replicas(), halves.firstAddresses(), halves.secondAddresses());
    CpuDevice.check("cpu", status, "syncbn_cpu_forward");
  }

  @Override
  public void backward(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves, Rows[] rows) {
    for (int i = 0; i < halves.replicas(); i++) {
      halves.first(i).stream(pool);
      halves.second(i).stream(pool);
    }
    int status =
        CpuKernels.syncbn_cpu_backward(
            halves.replicas(), halves.firstAddresses(), halves.secondAddresses());
    CpuDevice.check("cpu", status, "syncbn_cpu_backward");
  }

  @Override
  public String exchangeCall() {
    return "copy of rows";
  }

  @Override
  public void run(Collective[] parts) {
    collectives.meet(parts);
  }

  @Override
  public String callOf(Collective part) {
    return part.isSum() ? "sum" : "broadcast";
  }

  private static String conflict(Rows mine, Rows other) {
    return mine.length() == other.length()
        ? null
        : "rank %d came with rows of %d doubles, rank %d with %d: they are at different layers or steps"
            .formatted(mine.rank(), mine.length(), other.rank(), other.length());
  }

  private static String conflict(Collective mine, Collective other) {
    return mine.matches(other)
        ? null
        : "rank %d came with a %s, rank %d with a %s"
            .formatted(mine.rank(), mine, other.rank(), other);
  }

  @Override
  public DeviceGroup split(int color, int key, Duration timeout) {
    throw new UnsupportedOperationException("CPU replicas are all in one process");
  }

  @Override
  public void abort() {
    exchanges.abort();
    collectives.abort();
  }

  @Override
  public synchronized void close() {
    if (!closed) {
      closed = true;
      abort();
      CpuDevice.check("cpu", CpuKernels.syncbn_cpu_pool_destroy(pool), "syncbn_cpu_pool_destroy");
    }
  }
}
