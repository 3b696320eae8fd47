package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * A GPU whose rows go through NCCL although no other rank is there: {@code ReplicaGroup} makes no
 * communicator for one GPU, and what is compared with a library that always has one needs it.
 */
public final class OneRank implements AutoCloseable {
  private final CudaDevice device;

  /** Null where there is no NCCL. */
  private final NcclClique clique;

  private final Rows[] rows = new Rows[1];

  public OneRank(int gpu, Duration timeout) {
    device = new CudaDevice(gpu);
    try {
      clique = Nccl.isAvailable() ? NcclClique.connect(List.of(device), timeout) : null;
    } catch (RuntimeException e) {
      Cleanup.after(e, device::close);
      throw e;
    }
  }

  public Device device() {
    return device;
  }

  /** Whether this machine has NCCL. */
  public boolean canExchange() {
    return clique != null;
  }

  /** Bytes that one launch keeps on the chip; 0: it takes two. */
  public long forwardOnChip(syncbn_stats_args stats, syncbn_normalize_args normalize) {
    return new OneLaunch(device).bytesOnChip(stats, normalize);
  }

  /** As {@link #forwardOnChip}. */
  public long backwardOnChip(syncbn_backward_reduce_args reduce, syncbn_backward_input_args input) {
    return new OneLaunch(device).bytesOnChip(reduce, input);
  }

  /** Enqueues the exchange on the device's stream. */
  public void exchange(Rows mine) {
    rows[0] = mine;
    clique.allReduce(rows);
  }

  @Override
  public void close() {
    List<Runnable> releases = new ArrayList<>();
    if (clique != null) {
      releases.add(clique::close);
    }
    releases.add(device::close);
    Cleanup.runAll(releases);
  }
}
