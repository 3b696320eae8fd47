package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.TracedDeviceGroup;
import io.github.syncbn4j.device.cpu.CpuDeviceGroup;
import io.github.syncbn4j.device.cuda.CudaDeviceGroup;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import io.github.syncbn4j.job.Call;
import io.github.syncbn4j.job.JobEnvironment;
import io.github.syncbn4j.job.JobException;
import io.github.syncbn4j.job.Rendezvous;
import io.github.syncbn4j.job.Roll;
import io.github.syncbn4j.job.SideChannel;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** How a group comes to be: its devices are found and, where there are several, connected. */
final class GroupMaker {
  /** Under the name by which users know it. */
  private static final Logger LOG = LoggerFactory.getLogger(ReplicaGroup.class);

  private static final Duration LISTENING_PERIOD = Duration.ofMillis(50);

  private final GroupOptions options;
  private final JobEnvironment job;
  private final Duration timeout;

  GroupMaker(GroupOptions options) {
    this.options = options;
    this.job = options.job;
    this.timeout = options.timeout;
  }

  static void choose(GroupOptions options) {
    if (!CudaRuntime.isAvailable()) {
      LOG.info("syncbn4j uses the CPU: {}", String.join("; ", CudaRuntime.unavailabilityReasons()));
      options.cpus(1);
    } else if (CudaRuntime.deviceCount() > 1 && !Nccl.isAvailable()) {
      LOG.info(
          "syncbn4j uses one GPU of {}: {}",
          CudaRuntime.deviceCount(),
          String.join("; ", Nccl.unavailabilityReasons()));
      options.gpus(0);
    } else {
      LOG.info("syncbn4j uses {} GPU(s)", CudaRuntime.deviceCount());
      options.gpus();
    }
  }

  ReplicaGroup make() {
    options.requireOneKind();
    if (job != null && job.worldSize() > 1) {
      return inJob();
    }
    DeviceGroup devices;
    if (options.cpus != null) {
      devices = new CpuDeviceGroup(options.cpus, options.threads);
    } else if (options.gpus != null) {
      devices = CudaDeviceGroup.of(requireThere(options.gpus), timeout);
    } else if (job != null) {
      devices = CudaDeviceGroup.of(gpuOfJob(), timeout);
    } else {
      GroupOptions.Member member = options.member;
      int device = requireThere(member.device())[0];
      devices =
          CudaDeviceGroup.rank(
              device,
              member.rank(),
              member.worldSize(),
              member.id(),
              timeout,
              new CompletableFuture<>());
    }
    boolean together = devices.size() == devices.devices().size();
    return group(devices, together ? new Roll(devices.size(), timeout) : SideChannel.NONE, null);
  }

  private ReplicaGroup inJob() {
    int[] gpu = gpuOfJob();
    Rendezvous rendezvous;
    try {
      rendezvous =
          new Rendezvous(job, job.rank() == 0 ? ReplicaGroup.newUniqueId() : new byte[0], timeout);
    } catch (JobException e) {
      throw new CollectiveException(e.getMessage(), e);
    }
    SideChannel world = rendezvous.world();
    CompletableFuture<Void> lost = new CompletableFuture<>();
    Thread listener = listener(world, lost);
    DeviceGroup devices;
    try {
      world.report(job.rank(), List.of(Call.CONNECT));
      listener.start();
      devices =
          CudaDeviceGroup.rank(gpu[0], job.rank(), job.worldSize(), rendezvous.id(), timeout, lost);
    } catch (RuntimeException | Error e) {
      world.fail(e.getMessage());
      Cleanup.after(e, world::close);
      throw e;
    } finally {
      lost.complete(null);
    }
    return group(devices, world, rendezvous);
  }

  /** Until there is a watchdog: NCCL does not notice who is lost while it connects. */
  private static Thread listener(SideChannel world, CompletableFuture<Void> lost) {
    Thread thread =
        new Thread(
            () -> {
              while (!lost.isDone()) {
                String verdict = world.verdict();
                if (verdict != null) {
                  lost.completeExceptionally(new CollectiveException(verdict));
                }
                LockSupport.parkNanos(LISTENING_PERIOD.toNanos());
              }
            },
            "syncbn-listener");
    thread.setDaemon(true);
    return thread;
  }

  private ReplicaGroup group(DeviceGroup devices, SideChannel channel, Rendezvous rendezvous) {
    return new ReplicaGroup(
        options.trace == null ? devices : new TracedDeviceGroup(devices, options.trace),
        channel,
        rendezvous,
        "",
        timeout);
  }

  /**
   * The one with the local rank; or the only one, where the launcher shows each process its own.
   */
  private int[] gpuOfJob() {
    CudaRuntime.ensureAvailable(
        "no GPU can be used, and CPU replicas in several processes are not offered");
    int count = CudaRuntime.deviceCount();
    return requireThere(count == 1 ? 0 : job.localRank());
  }

  private static int[] requireThere(int... gpus) {
    CudaRuntime.ensureAvailable();
    int count = CudaRuntime.deviceCount();
    if (gpus.length == 0) {
      return IntStream.range(0, count).toArray();
    }
    for (int ordinal : gpus) {
      if (ordinal < 0 || ordinal >= count) {
        throw new IllegalArgumentException(
            "gpu:%d is not there: cudaGetDeviceCount says %d (gpu:0 to gpu:%d)"
                .formatted(ordinal, count, count - 1));
      }
      if (Arrays.stream(gpus).filter(other -> other == ordinal).count() > 1) {
        throw new IllegalArgumentException(
            "gpu:%d is listed twice: %s".formatted(ordinal, Arrays.toString(gpus)));
      }
    }
    return gpus;
  }
}
