package io.github.syncbn4j.device.cpu;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.CpuKernels;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Replicas on the CPU of this process: one pool of threads for all of them, rows exchanged by
 * copying.
 */
public final class CpuDeviceGroup implements DeviceGroup {
  private final long pool;
  private final List<Device> devices;
  private final RowExchange exchange;
  private boolean closed;

  /**
   * @param replicas at least 1
   * @param threads of the pool, 1 to 256, the calling thread included
   */
  public CpuDeviceGroup(int replicas, int threads) {
    int abi = CpuKernels.syncbn_cpu_abi_version();
    if (abi != CpuKernels.SYNCBN_ABI_VERSION) {
      throw new DeviceException(
          "cpu",
          "syncbn_cpu_abi_version",
          abi,
          "libsyncbn_cpu.so has ABI version "
              + abi
              + ", needed is "
              + CpuKernels.SYNCBN_ABI_VERSION);
    }
    long[] handle = new long[1];
    CpuDevice.check(
        "cpu", CpuKernels.syncbn_cpu_pool_create(threads, handle), "syncbn_cpu_pool_create");
    this.pool = handle[0];
    this.devices =
        IntStream.range(0, replicas).<Device>mapToObj(rank -> new CpuDevice(rank, pool)).toList();
    this.exchange = new RowExchange(replicas);
  }

  /** Compiler and instruction sets of libsyncbn_cpu.so. */
  public static String buildInfo() {
    return CpuKernels.syncbn_cpu_build_info().getString();
  }

  @Override
  public List<Device> devices() {
    return devices;
  }

  @Override
  public void exchange(Rows[] rows) throws CollectiveException {
    exchange.exchange(rows);
  }

  @Override
  public String exchangeCall() {
    return "copy of rows";
  }

  @Override
  public void abort() {
    exchange.abort();
  }

  @Override
  public synchronized void close() {
    if (!closed) {
      closed = true;
      exchange.abort();
      CpuDevice.check("cpu", CpuKernels.syncbn_cpu_pool_destroy(pool), "syncbn_cpu_pool_destroy");
    }
  }
}
