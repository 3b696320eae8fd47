package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.CudaKernels;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntConsumer;
import java.util.stream.Collectors;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.nccl;
import org.bytedeco.cuda.nccl.ncclComm;
import org.bytedeco.cuda.nccl.ncclConfig_t;
import org.bytedeco.cuda.nccl.ncclUniqueId;
import org.bytedeco.javacpp.PointerPointer;

/**
 * NCCL between the GPUs of this process: one blocking communicator a GPU.
 *
 * <p>NCCL's blocking calls have no time limit of their own, so each that may wait for another rank
 * (making, aborting and destroying a communicator) runs on a daemon thread of its own under a
 * deadline. A thread that misses it is given up.
 */
final class NcclClique {
  /**
   * NCCL's guide calls the abort of a blocking communicator unsafe in the worst case: it may itself
   * hang.
   */
  private static final Duration ABORT_TIMEOUT = Duration.ofSeconds(10);

  private static final Duration CALL_GRACE = Duration.ofMillis(50);

  private static final long POLL_NANOS = 50_000;

  private final Enqueue<Rows> allReduceRows = new AllReduceRows();
  private final Enqueue<Collective> collective = new OfTensor();
  private final List<CudaDevice> devices;
  private final ncclComm[] communicators;

  /**
   * Where NCCL leaves a communicator's handle before it connects, so that it can be aborted while
   * it does.
   */
  private final PointerPointer<ncclComm> handles;

  /**
   * Threads in {@link #enqueueAll}: a communicator is freed under none of them, if they leave in
   * time.
   */
  private final AtomicInteger callsUnderWay = new AtomicInteger();

  /** 1 for a rank whose thread may still come to NCCL and leave a handle there. */
  private final AtomicIntegerArray connecting;

  private volatile boolean usable = true;

  NcclClique(List<CudaDevice> devices, Duration timeout) {
    Nccl.ensureAvailable();
    this.devices = List.copyOf(devices);
    this.communicators = new ncclComm[devices.size()];
    this.handles = new PointerPointer<>(new ncclComm[devices.size()]).retainReference();
    this.connecting = new AtomicIntegerArray(devices.stream().mapToInt(device -> 1).toArray());
    ncclUniqueId id = new ncclUniqueId();
    Nccl.check(
        "gpu:" + devices.get(0).ordinal(), nccl.ncclGetUniqueId(id), "ncclGetUniqueId", null);
    ncclConfig_t config = Nccl.blockingConfig();
    try {
      onAllRanks(
          "connect",
          timeout,
          true,
          rank -> {
            try {
              connect(rank, id, config);
            } finally {
              connecting.set(rank, 0);
            }
          });
    } catch (RuntimeException e) {
      Cleanup.after(e, this::abort);
      throw e;
    }
  }

  private void connect(int rank, ncclUniqueId id, ncclConfig_t config) {
    devices.get(rank).enter();
    if (usable) {
      int result =
          nccl.ncclCommInitRankConfig(handles.getPointer(rank), devices.size(), id, rank, config);
      Nccl.check(devices.get(rank).id(), result, "ncclCommInitRankConfig", null);
      communicators[rank] = handles.get(ncclComm.class, rank);
    }
  }

  /** Enqueues the sum of the replicas' rows. */
  void allReduce(Rows[] rows) {
    enqueueAll(rows, allReduceRows);
  }

  /** NCCL's function for a collective over tensors. */
  static String callOf(Collective part) {
    return part.isSum() ? "ncclAllReduce" : "ncclBroadcast";
  }

  /** Enqueues a collective over tensors. */
  void run(Collective[] parts) {
    enqueueAll(parts, collective);
  }

  private <T> void enqueueAll(T[] parts, Enqueue<T> call) {
    callsUnderWay.incrementAndGet();
    try {
      if (!usable) {
        throw new CollectiveException("the communicators were aborted");
      }
      if (parts.length == 1) {
        enqueueOne(parts[0], call);
      } else {
        enqueueGroup(parts, call);
      }
    } finally {
      callsUnderWay.decrementAndGet();
    }
  }

  private <T> void enqueueOne(T part, Enqueue<T> call) {
    CudaDevice device = devices.get(call.rank(part));
    int previous = device.enter();
    try {
      enqueue(part, call);
    } finally {
      device.leave(previous);
    }
  }

  private <T> void enqueueGroup(T[] parts, Enqueue<T> call) {
    checkGroup(parts, call, nccl.ncclGroupStart(), "ncclGroupStart");
    RuntimeException refused = null;
    try {
      for (T part : parts) {
        enqueue(part, call);
      }
    } catch (RuntimeException e) {
      refused = e;
    }
    // A group that was started has to be ended, whatever became of its calls.
    int result = nccl.ncclGroupEnd();
    if (refused != null) {
      throw refused;
    }
    checkGroup(parts, call, result, "ncclGroupEnd");
  }

  private <T> void checkGroup(T[] parts, Enqueue<T> call, int result, String name) {
    if (result != nccl.ncclSuccess) {
      String ids =
          Arrays.stream(parts)
              .map(part -> devices.get(call.rank(part)).id())
              .collect(Collectors.joining(", "));
      Nccl.check(ids, result, name, null);
    }
  }

  private <T> void enqueue(T part, Enqueue<T> call) {
    ncclComm communicator = communicators[call.rank(part)];
    CudaDevice device = devices.get(call.rank(part));
    int result = call.enqueue(part, communicator, device.streamPointer());
    Nccl.check(device.id(), result, call.name(part), communicator);
  }

  /** A collective call of one rank. Made once each, so that a step makes nothing. */
  private interface Enqueue<T> {
    int rank(T part);

    int enqueue(T part, ncclComm communicator, CUstream_st stream);

    String name(T part);
  }

  private static final class AllReduceRows implements Enqueue<Rows> {
    @Override
    public int rank(Rows part) {
      return part.rank();
    }

    @Override
    public int enqueue(Rows part, ncclComm communicator, CUstream_st stream) {
      return nccl.ncclAllReduce(
          part.buffer(),
          part.buffer(),
          part.elements(),
          nccl.ncclFloat64,
          nccl.ncclSum,
          communicator,
          stream);
    }

    @Override
    public String name(Rows part) {
      return "ncclAllReduce";
    }
  }

  private static final class OfTensor implements Enqueue<Collective> {
    @Override
    public int rank(Collective part) {
      return part.rank();
    }

    @Override
    public int enqueue(Collective part, ncclComm communicator, CUstream_st stream) {
      Address buffer = new Address(part.address());
      return part.isSum()
          ? nccl.ncclAllReduce(
              buffer,
              buffer,
              part.elements(),
              type(part.dtype()),
              nccl.ncclSum,
              communicator,
              stream)
          : nccl.ncclBroadcast(
              buffer, buffer, part.bytes(), nccl.ncclUint8, part.root(), communicator, stream);
    }

    private static int type(int dtype) {
      return switch (dtype) {
        case CudaKernels.SYNCBN_FLOAT64 -> nccl.ncclFloat64;
        case CudaKernels.SYNCBN_FLOAT32 -> nccl.ncclFloat32;
        case CudaKernels.SYNCBN_FLOAT16 -> nccl.ncclFloat16;
        default -> nccl.ncclBfloat16;
      };
    }

    @Override
    public String name(Collective part) {
      return callOf(part);
    }
  }

  /**
   * Frees the streams that wait in a collective. The communicators are gone afterwards. Idempotent.
   */
  synchronized void abort() {
    if (usable) {
      usable = false;
      awaitCalls();
      onAllRanks("abort", ABORT_TIMEOUT, false, this::abort);
    }
  }

  /**
   * Calls that only enqueue end at once. One that waits for another rank is what the abort is for.
   */
  private void awaitCalls() {
    long deadline = System.nanoTime() + CALL_GRACE.toNanos();
    while (callsUnderWay.get() > 0 && System.nanoTime() < deadline) {
      LockSupport.parkNanos(POLL_NANOS);
    }
  }

  private void abort(int rank) {
    ncclComm communicator = handles.get(ncclComm.class, rank);
    // Where another rank failed to connect, this one may come to NCCL, and wait there, only now.
    while (communicator == null && connecting.get(rank) == 1) {
      LockSupport.parkNanos(POLL_NANOS);
      communicator = handles.get(ncclComm.class, rank);
    }
    if (communicator != null) {
      Nccl.check(devices.get(rank).id(), nccl.ncclCommAbort(communicator), "ncclCommAbort", null);
    }
  }

  /** Releases the communicators. All streams must be idle. Idempotent. */
  synchronized void close() {
    if (usable) {
      usable = false;
      onAllRanks(
          "close",
          ABORT_TIMEOUT,
          false,
          rank ->
              Nccl.check(
                  devices.get(rank).id(),
                  nccl.ncclCommDestroy(communicators[rank]),
                  "ncclCommDestroy",
                  null));
    }
  }

  /**
   * Runs a task for every rank, each on a thread of its own. NCCL finds a communicator's device
   * itself.
   *
   * @param untilOneFails not to wait for the others when one has failed: they may wait for it for
   *     ever
   * @throws RuntimeException what the first failing task threw
   * @throws CollectiveException if not all ended in time
   */
  private void onAllRanks(String what, Duration timeout, boolean untilOneFails, IntConsumer task) {
    List<CompletableFuture<Void>> ends = new ArrayList<>();
    CompletableFuture<Void> failure = new CompletableFuture<>();
    for (CudaDevice device : devices) {
      int rank = ends.size();
      CompletableFuture<Void> end = new CompletableFuture<>();
      ends.add(end);
      Thread thread =
          new Thread(
              () -> {
                try {
                  task.accept(rank);
                } catch (RuntimeException | Error e) {
                  failure.completeExceptionally(e);
                } finally {
                  end.complete(null);
                }
              },
              "syncbn-" + what + "-" + device.id());
      thread.setDaemon(true);
      thread.start();
    }
    CompletableFuture<Void> all = CompletableFuture.allOf(ends.toArray(CompletableFuture[]::new));
    try {
      (untilOneFails ? CompletableFuture.anyOf(all, failure) : all)
          .orTimeout(timeout.toNanos(), TimeUnit.NANOSECONDS)
          .join();
      failure.getNow(null);
    } catch (CompletionException e) {
      if (e.getCause() instanceof TimeoutException) {
        throw new CollectiveException(
            "NCCL did not %s %d GPUs within %.3f s"
                .formatted(what, devices.size(), timeout.toMillis() / 1e3));
      }
      if (e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      throw e;
    }
  }
}
