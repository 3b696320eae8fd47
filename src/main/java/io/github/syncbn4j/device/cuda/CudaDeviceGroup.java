package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.Halves;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;

/**
 * GPUs of this process: a stream each, and NCCL between them and those of other processes, where
 * there are two or more.
 */
public final class CudaDeviceGroup implements DeviceGroup {
  private final List<CudaDevice> devices = new ArrayList<>();

  /** Null for one GPU, which has nobody to exchange with. */
  private NcclClique nccl;

  /** Of the first GPU, for where it is the only one. */
  private OneLaunch alone;

  private boolean closed;

  private CudaDeviceGroup(Function<List<CudaDevice>, NcclClique> connect, int... ordinals) {
    CudaRuntime.ensureAvailable();
    try {
      for (int ordinal : ordinals) {
        devices.add(new CudaDevice(ordinal));
      }
      alone = new OneLaunch(devices.get(0));
      nccl = connect.apply(devices);
    } catch (RuntimeException e) {
      Cleanup.after(e, this::close);
      throw e;
    }
  }

  /**
   * All GPUs of a group.
   *
   * @param ordinals the GPUs, in rank order, none twice
   * @param timeout for NCCL to connect them
   */
  public static CudaDeviceGroup of(int[] ordinals, Duration timeout) {
    return new CudaDeviceGroup(
        devices -> devices.size() == 1 ? null : NcclClique.connect(devices, timeout), ordinals);
  }

  /**
   * One rank of a group that spans processes.
   *
   * @param size ranks in all of them
   * @param id from {@link #newId} of one of them
   * @param lost completes exceptionally once it is of no use to wait for the other ranks
   */
  public static CudaDeviceGroup rank(
      int ordinal, int rank, int size, byte[] id, Duration timeout, CompletableFuture<?> lost) {
    return new CudaDeviceGroup(
        devices -> size == 1 ? null : NcclClique.connect(devices, rank, size, id, timeout, lost),
        ordinal);
  }

  /** What one process hands to all others. */
  public static byte[] newId() {
    return NcclClique.newId("nccl");
  }

  @Override
  public CudaDeviceGroup split(int color, int key, Duration timeout) {
    return new CudaDeviceGroup(
        made -> nccl == null ? null : nccl.split(made.get(0), color, key, timeout),
        devices.get(0).ordinal());
  }

  @Override
  public List<Device> devices() {
    return List.copyOf(devices);
  }

  @Override
  public int size() {
    return nccl == null ? devices.size() : nccl.size();
  }

  @Override
  public int firstRank() {
    return nccl == null ? 0 : nccl.firstRank();
  }

  @Override
  public void exchange(Rows[] rows) throws CollectiveException {
    if (nccl != null) {
      nccl.allReduce(rows);
    }
  }

  /** A replica that is alone has nothing between the halves of a direction. */
  @Override
  public boolean joins(int replicas) {
    return nccl == null && alone.isWanted();
  }

  @Override
  public void forward(Halves<syncbn_stats_args, syncbn_normalize_args> halves, Rows[] rows) {
    alone.forward(halves.first(0), halves.second(0));
  }

  @Override
  public long forwardOnChip(Halves<syncbn_stats_args, syncbn_normalize_args> halves) {
    return alone.bytesOnChip(halves.first(0), halves.second(0));
  }

  @Override
  public void backward(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves, Rows[] rows) {
    alone.backward(halves.first(0), halves.second(0));
  }

  @Override
  public long backwardOnChip(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves) {
    return alone.bytesOnChip(halves.first(0), halves.second(0));
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
    return NcclCall.OF_TENSOR.name(part);
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
