package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.Rows;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** GPUs of this process: a stream each, and NCCL between them where there are two or more. */
public final class CudaDeviceGroup implements DeviceGroup {
  private final List<CudaDevice> devices = new ArrayList<>();

  /** Null for one GPU, which has nobody to exchange with. */
  private NcclClique nccl;

  private boolean closed;

  /**
   * @param ordinals the GPUs, in rank order, none twice
   * @param timeout for NCCL to connect them
   */
  public CudaDeviceGroup(int[] ordinals, Duration timeout) {
    CudaRuntime.ensureAvailable();
    try {
      for (int ordinal : ordinals) {
        devices.add(new CudaDevice(ordinal));
      }
      if (ordinals.length > 1) {
        nccl = new NcclClique(devices, timeout);
      }
    } catch (RuntimeException e) {
      Cleanup.after(e, this::close);
      throw e;
    }
  }

  @Override
  public List<Device> devices() {
    return List.copyOf(devices);
  }

  @Override
  public void exchange(Rows[] rows) throws CollectiveException {
    if (nccl != null) {
      nccl.allReduce(rows);
    }
  }

  @Override
  public String exchangeCall() {
    return nccl == null ? null : "ncclAllReduce";
  }

  @Override
  public void run(Collective[] parts) {
    if (nccl != null) {
      nccl.run(parts);
    }
  }

  @Override
  public String callOf(Collective part) {
    return NcclClique.callOf(part);
  }

  @Override
  public void abort() {
    if (nccl != null) {
      nccl.abort();
    }
  }

  @Override
  public synchronized void close() {
    if (!closed) {
      closed = true;
      List<Runnable> releases = new ArrayList<>();
      if (nccl != null) {
        releases.add(nccl::close);
      }
      devices.forEach(device -> releases.add(device::close));
      Cleanup.runAll(releases);
    }
  }
}
