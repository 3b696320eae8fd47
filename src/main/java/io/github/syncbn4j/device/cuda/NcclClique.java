package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Rows;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntConsumer;
import java.util.function.ToIntFunction;
import java.util.stream.Collectors;
import org.bytedeco.cuda.global.nccl;
import org.bytedeco.cuda.nccl.ncclComm;
import org.bytedeco.cuda.nccl.ncclConfig_t;
import org.bytedeco.cuda.nccl.ncclUniqueId;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerPointer;

/**
 * NCCL between the GPUs of this process, and those of others: one blocking communicator a GPU.
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

  /** For somebody to say first who is missing, where this one only sees that time is over. */
  private static final Duration NAMING_GRACE = Duration.ofMillis(300);

  /** For a communicator that is being made to get a handle, without which it cannot be aborted. */
  private static final Duration HANDLE_GRACE = Duration.ofMillis(500);

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

  /** GPUs whose thread may still come to NCCL and leave a handle there. */
  private final Set<Integer> making = ConcurrentHashMap.newKeySet();

  private int firstRank;
  private int size;
  private volatile boolean usable = true;

  private NcclClique(List<CudaDevice> devices) {
    Nccl.ensureAvailable();
    this.devices = List.copyOf(devices);
    this.communicators = new ncclComm[devices.size()];
    this.handles = new PointerPointer<>(new ncclComm[devices.size()]).retainReference();
  }

  /**
   * What one rank hands to all others, so that they connect.
   *
   * @param who asks, for messages
   */
  static byte[] newId(String who) {
    Nccl.ensureAvailable();
    try (ncclUniqueId id = new ncclUniqueId()) {
      Nccl.check(who, nccl.ncclGetUniqueId(id), "ncclGetUniqueId", null);
      byte[] bytes = new byte[nccl.NCCL_UNIQUE_ID_BYTES];
      new BytePointer(id).get(bytes);
      return bytes;
    }
  }

  /** Connects these GPUs with each other. */
  static NcclClique connect(List<CudaDevice> devices, Duration timeout) {
    byte[] id = newId("gpu:" + devices.get(0).ordinal());
    return connect(devices, 0, devices.size(), id, timeout, new CompletableFuture<>());
  }

  /**
   * Connects these GPUs with those of other processes.
   *
   * @param firstRank of the first; the others follow
   * @param size ranks in all processes
   * @param id the same in all
   * @param lost completes exceptionally once it is of no use to wait for the other ranks
   */
  static NcclClique connect(
      List<CudaDevice> devices,
      int firstRank,
      int size,
      byte[] id,
      Duration timeout,
      CompletableFuture<?> lost) {
    NcclClique clique = new NcclClique(devices);
    clique.firstRank = firstRank;
    clique.size = size;
    ncclUniqueId uniqueId = new ncclUniqueId();
    new BytePointer(uniqueId).put(id);
    ncclConfig_t config = Nccl.blockingConfig();
    clique.make(
        "connect",
        timeout,
        lost,
        i -> {
          int result =
              nccl.ncclCommInitRankConfig(
                  clique.handles.getPointer(i), size, uniqueId, firstRank + i, config);
          Nccl.check(devices.get(i).id(), result, "ncclCommInitRankConfig", null);
        });
    return clique;
  }

  /**
   * Connects a GPU with those of the ranks of this clique that say the same colour, in the order of
   * their keys. All ranks have to call it.
   */
  NcclClique split(CudaDevice device, int color, int key, Duration timeout) {
    NcclClique part = new NcclClique(List.of(device));
    ncclConfig_t config = Nccl.blockingConfig();
    part.make(
        "split",
        timeout,
        new CompletableFuture<>(),
        i -> {
          int result = nccl.ncclCommSplit(communicators[0], color, key, part.handles, config);
          Nccl.check(device.id(), result, "ncclCommSplit", communicators[0]);
        });
    ncclComm made = part.communicators[0];
    try {
      part.size = number(device, "ncclCommCount", value -> nccl.ncclCommCount(made, value));
      part.firstRank =
          number(device, "ncclCommUserRank", value -> nccl.ncclCommUserRank(made, value));
      return part;
    } catch (RuntimeException e) {
      Cleanup.after(e, part::abort);
      throw e;
    }
  }

  private static int number(CudaDevice device, String call, ToIntFunction<int[]> query) {
    int[] value = new int[1];
    Nccl.check(device.id(), query.applyAsInt(value), call, null);
    return value[0];
  }

  private void make(String what, Duration timeout, CompletableFuture<?> lost, IntConsumer task) {
    for (int i = 0; i < devices.size(); i++) {
      making.add(i);
    }
    try {
      onAllRanks(
          what,
          timeout,
          lost,
          i -> {
            try {
              devices.get(i).enter();
              if (usable) { // not yet given up
                task.accept(i);
                communicators[i] = handles.get(ncclComm.class, i);
              }
            } finally {
              making.remove(i);
            }
          });
    } catch (RuntimeException e) {
      Cleanup.after(e, this::abort);
      throw e;
    }
  }

  /** Ranks in all processes. */
  int size() {
    return size;
  }

  /** Of the first GPU; those of the others follow. */
  int firstRank() {
    return firstRank;
  }

  /** Enqueues the sum of the replicas' rows. */
  void allReduce(Rows[] rows) {
    enqueueAll(rows, NcclCall.ALL_REDUCE_ROWS);
  }

  /** Enqueues a collective over tensors. */
  void run(Collective[] parts) {
    enqueueAll(parts, NcclCall.OF_TENSOR);
  }

  private <T> void enqueueAll(T[] parts, NcclCall<T> call) {
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

  private <T> void enqueueOne(T part, NcclCall<T> call) {
    CudaDevice device = device(call.rank(part));
    int previous = device.enter();
    try {
      enqueue(part, call);
    } finally {
      device.leave(previous);
    }
  }

  private <T> void enqueueGroup(T[] parts, NcclCall<T> call) {
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

  private <T> void checkGroup(T[] parts, NcclCall<T> call, int result, String name) {
    if (result != nccl.ncclSuccess) {
      String ids =
          Arrays.stream(parts)
              .map(part -> device(call.rank(part)).id())
              .collect(Collectors.joining(", "));
      Nccl.check(ids, result, name, null);
    }
  }

  private CudaDevice device(int rank) {
    return devices.get(rank - firstRank);
  }

  private <T> void enqueue(T part, NcclCall<T> call) {
    ncclComm communicator = communicators[call.rank(part) - firstRank];
    CudaDevice device = device(call.rank(part));
    int result = call.enqueue(part, communicator, device.streamPointer());
    Nccl.check(device.id(), result, call.name(part), communicator);
  }

  /**
   * Frees the streams that wait in a collective. The communicators are gone afterwards. Idempotent.
   */
  synchronized void abort() {
    if (usable) {
      usable = false;
      awaitCalls();
      onAllRanks("abort", ABORT_TIMEOUT, null, this::abort);
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
    long deadline = System.nanoTime() + HANDLE_GRACE.toNanos();
    ncclComm communicator = handles.get(ncclComm.class, rank);
    while (communicator == null && making.contains(rank) && System.nanoTime() < deadline) {
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
          null,
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
   * @param lost not to wait any longer when it, or one rank, has failed: the others may wait for it
   *     for ever. Null to wait for all.
   * @throws RuntimeException what the first failing task threw
   * @throws CollectiveException if not all ended in time
   */
  private void onAllRanks(
      String what, Duration timeout, CompletableFuture<?> lost, IntConsumer task) {
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
      (lost == null ? all : CompletableFuture.anyOf(all, failure, lost))
          .orTimeout(timeout.plus(NAMING_GRACE).toNanos(), TimeUnit.NANOSECONDS)
          .join();
      failure.getNow(null);
    } catch (CompletionException e) {
      if (e.getCause() instanceof TimeoutException) {
        throw new CollectiveException(
            "NCCL did not %s %d GPUs within %.3f s"
                .formatted(what, size, timeout.toMillis() / 1e3));
      }
      if (e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      throw e;
    }
  }
}
