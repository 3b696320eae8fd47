package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.DeviceMemoryException;
import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.TracedDeviceGroup;
import io.github.syncbn4j.device.cpu.CpuDeviceGroup;
import io.github.syncbn4j.device.cuda.CudaDeviceGroup;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import io.github.syncbn4j.device.natives.syncbn_control;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The replicas that normalize together: GPUs of this node, or replicas on the CPU.
 *
 * <p>Owns devices, streams, communicators, and everything that was allocated or built on it;
 * closing it closes those.
 *
 * <p><b>Threads.</b> Either one thread hands over one tensor per replica, or every replica has a
 * thread of its own; the results are the same bits. All replicas must take the same steps of the
 * same layers in the same order.
 *
 * <p><b>Failure.</b> A step on GPUs is only enqueued when a call returns, so what goes wrong in it
 * shows later: the next call on any replica, {@link #check()} and {@link #close()} throw it, and
 * {@link #failure()} keeps it. A failed group cannot be used again, only closed; a new one can be
 * made. A step that failed changed no state, unless launching its last kernel failed on one replica
 * after others had launched theirs: these may then differ.
 */
public final class ReplicaGroup implements AutoCloseable {
  /** How long replicas wait for each other, unless {@link Builder#timeout} says otherwise. */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofMinutes(10);

  private static final Logger LOG = LoggerFactory.getLogger(ReplicaGroup.class);

  /**
   * How long {@link #close()} waits for other threads to leave the group's calls after it has
   * aborted them.
   */
  private static final Duration DRAIN_TIMEOUT = Duration.ofSeconds(10);

  /** How long {@link #close()} lets other threads finish short calls before it aborts them. */
  private static final Duration CALL_GRACE = Duration.ofMillis(50);

  private static final long SPIN_NANOS = 50_000;
  private static final long PARK_NANOS = 50_000;

  /** How often one who waits looks at the other replicas. */
  private static final int PARKS_PER_LOOK = 100;

  private final DeviceGroup devices;
  private final List<Replica> replicas;
  private final Duration timeout;
  private final AtomicReference<RuntimeException> failure = new AtomicReference<>();
  private final AtomicInteger callsUnderWay = new AtomicInteger();
  private final AtomicInteger layerIds = new AtomicInteger();
  private final Set<SyncBatchNormalization> layers = ConcurrentHashMap.newKeySet();
  private final Watchdog watchdog;
  private volatile boolean failureSeen;
  private volatile boolean closed;

  private ReplicaGroup(DeviceGroup devices, Duration timeout) {
    this.devices = devices;
    this.timeout = timeout;
    List<Replica> members = new ArrayList<>();
    for (Device device : devices.devices()) {
      members.add(new Replica(this, members.size(), device));
    }
    this.replicas = List.copyOf(members);
    this.watchdog = new Watchdog(members.size(), timeout, this::fail);
  }

  /** {@code n} replicas on the CPU of this process. */
  public static ReplicaGroup cpus(int n) {
    return builder().cpus(n).build();
  }

  /**
   * One replica on every GPU that this process sees.
   *
   * @throws DeviceUnavailableException with every reason, if there is none, or NCCL is missing for
   *     several
   */
  public static ReplicaGroup gpus() {
    return builder().gpus().build();
  }

  /**
   * One replica on each of these GPUs, in rank order.
   *
   * @throws IllegalArgumentException for a GPU that is not there or is listed twice
   * @throws DeviceUnavailableException as {@link #gpus()}
   */
  public static ReplicaGroup gpus(int... ordinals) {
    return builder().gpus(ordinals).build();
  }

  /**
   * All GPUs; one without NCCL; one CPU replica without a GPU. Logs its choice and the reason in
   * one line.
   */
  public static ReplicaGroup auto() {
    if (!CudaRuntime.isAvailable()) {
      LOG.info("syncbn4j uses the CPU: {}", String.join("; ", CudaRuntime.unavailabilityReasons()));
      return cpus(1);
    }
    if (CudaRuntime.deviceCount() > 1 && !Nccl.isAvailable()) {
      LOG.info(
          "syncbn4j uses one GPU of {}: {}",
          CudaRuntime.deviceCount(),
          String.join("; ", Nccl.unavailabilityReasons()));
      return gpus(0);
    }
    LOG.info("syncbn4j uses {} GPU(s)", CudaRuntime.deviceCount());
    return gpus();
  }

  public static Builder builder() {
    return new Builder();
  }

  /** Number of replicas. */
  public int size() {
    return replicas.size();
  }

  /** In rank order. */
  public List<Replica> replicas() {
    return replicas;
  }

  public Replica replica(int rank) {
    return replicas.get(Objects.checkIndex(rank, replicas.size()));
  }

  /**
   * Waits until everything enqueued on every replica has run, and reports what went wrong in it.
   */
  public void synchronize() {
    replicas.forEach(Replica::synchronize);
  }

  /**
   * Reports a failure that is known by now, without waiting.
   *
   * @throws RuntimeException the failure itself the first time, a {@link CollectiveException}
   *     caused by it from then on
   * @throws IllegalStateException if the group is closed
   */
  public void check() {
    callsUnderWay.incrementAndGet();
    try {
      requireUsable();
    } finally {
      callsUnderWay.decrementAndGet();
    }
  }

  /** Within a counted call, so that closing does not take the control words away. */
  private void requireUsable() {
    requireOpen();
    detectMismatch();
    RuntimeException known = failure.get();
    if (known != null && !failureSeen) {
      failureSeen = true;
      throw known;
    }
    if (known != null) {
      throw hasFailed(known);
    }
  }

  private static CollectiveException hasFailed(RuntimeException known) {
    return new CollectiveException("the group has failed: " + known.getMessage(), known);
  }

  private void detectMismatch() {
    for (Replica replica : replicas) {
      syncbn_control control = replica.device().control().host();
      if (control.mismatch() != 0) {
        fail(mismatch(replica, control));
      }
    }
  }

  /**
   * Sums tensors over the replicas, in place: for the gradients of a model's other parameters. Is
   * enqueued behind what is on each replica's stream. All replicas get the same bits; on GPUs the
   * order of the additions is NCCL's, on the CPU that of the ranks, in float64.
   *
   * @param tensors one a replica, in rank order, of one floating-point type, shape and strides,
   *     without gaps
   * @throws IllegalArgumentException for tensors that do not fit
   */
  public void allReduce(List<DeviceTensor> tensors) {
    run(parts(tensors, Collective.SUM));
  }

  /**
   * Copies the tensor of one replica to those of all others, as {@link #allReduce}: for the first
   * values of a model's parameters.
   *
   * @param root the rank whose values they get
   * @throws IllegalArgumentException for tensors that do not fit, and a rank that is not there
   */
  public void broadcast(List<DeviceTensor> tensors, int root) {
    requireRank(root);
    run(parts(tensors, root));
  }

  void requireRank(int rank) {
    if (rank < 0 || rank >= size()) {
      throw new IllegalArgumentException(
          "rank " + rank + " is not in the group: 0 to " + (size() - 1));
    }
  }

  private Collective[] parts(List<DeviceTensor> tensors, int root) {
    if (tensors.size() != size()) {
      throw new IllegalArgumentException(
          "%d tensors, the group has %d replicas".formatted(tensors.size(), size()));
    }
    Collective[] parts = new Collective[size()];
    DeviceTensor first = tensors.get(0);
    for (int rank = 0; rank < parts.length; rank++) {
      DeviceTensor tensor = tensors.get(rank);
      parts[rank] = replica(rank).part(tensor, root);
      if (tensor.dtype() != first.dtype()
          || !tensor.hasShape(first.shape())
          || !tensor.hasStrides(first.strides())) {
        throw new IllegalArgumentException(
            "the tensor of rank %d is %s, that of rank 0 is %s".formatted(rank, tensor, first));
      }
    }
    return parts;
  }

  /** What the group failed of, if it did. */
  public Optional<RuntimeException> failure() {
    return Optional.ofNullable(failure.get());
  }

  /**
   * Waits for what is enqueued, then releases everything. Idempotent. Calls under way in other
   * threads are ended with a {@link CollectiveException}.
   *
   * @throws RuntimeException a failure that no call has reported yet; everything is released all
   *     the same
   * @throws IllegalStateException if a device is stuck even after an abort: its memory is then not
   *     released; and while the stream of a replica is captured into a graph, which changes nothing
   */
  @Override
  public void close() {
    synchronized (this) {
      if (closed) {
        return;
      }
      replicas.forEach(this::requireNoCapture);
      closed = true;
    }
    if (!awaited(() -> callsUnderWay.get() == 0, CALL_GRACE)) {
      fail(new CollectiveException("the group was closed while another thread was in a step"));
    }
    if (failure.get() == null) {
      try {
        replicas.forEach(this::awaitIdle);
      } catch (RuntimeException e) {
        fail(e);
      }
      detectMismatch();
    }
    if (failure.get() != null) {
      awaitEndOfAborted();
    }
    watchdog.close();
    List<Runnable> releases = new ArrayList<>();
    layers.forEach(layer -> releases.add(layer::close));
    replicas.forEach(replica -> releases.add(replica::closeTensors));
    releases.add(devices::close);
    try {
      Cleanup.runAll(releases);
    } catch (RuntimeException e) {
      failure.compareAndSet(null, e); // there is nothing left to abort
    }
    RuntimeException known = failure.get();
    if (known != null && !failureSeen) {
      failureSeen = true;
      throw known;
    }
  }

  private static boolean awaited(BooleanSupplier condition, Duration atMost) {
    long deadline = System.nanoTime() + atMost.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadline) {
        return false;
      }
      LockSupport.parkNanos(PARK_NANOS);
    }
    return true;
  }

  /** Releasing memory waits for the device: a device that never ends would make it hang. */
  private void awaitEndOfAborted() {
    if (!awaited(
        () -> callsUnderWay.get() == 0 && replicas.stream().allMatch(this::isOver),
        DRAIN_TIMEOUT)) {
      throw new IllegalStateException(
          "a step is still under way %d s after the group was aborted; nothing is released"
              .formatted(DRAIN_TIMEOUT.toSeconds()),
          failure.get());
    }
  }

  private boolean isOver(Replica replica) {
    try {
      return replica.device().isIdle();
    } catch (DeviceException e) {
      return true; // a device that reports an error runs nothing any more
    }
  }

  // --------------------------------------------------------------------------------------------
  // for the layers

  /**
   * Numbers layers in the order in which they are built, which is the same in every process of a
   * job.
   */
  int nextLayerId() {
    return layerIds.getAndIncrement();
  }

  /** Has the group close the layer. */
  void register(SyncBatchNormalization layer) {
    synchronized (this) {
      requireOpen();
      layers.add(layer);
    }
  }

  void forget(SyncBatchNormalization layer) {
    layers.remove(layer);
  }

  void requireOpen() {
    if (closed) {
      throw new IllegalStateException("the group is closed");
    }
  }

  /** Runs what touches the devices; what fails there fails the group. */
  void call(Runnable action) {
    callEvenIfFailed(
        () -> {
          requireUsable();
          action.run();
        });
  }

  /** As {@link #call}, also on a group that has failed: for reading what it left. */
  void callEvenIfFailed(Runnable action) {
    callsUnderWay.incrementAndGet();
    try {
      requireOpen();
      action.run();
    } catch (DeviceException | CollectiveException e) {
      throw failed(e);
    } finally {
      callsUnderWay.decrementAndGet();
    }
  }

  /**
   * Runs a part of a step. Whatever ends it early fails the group, since other replicas may have
   * gone on; so does a failure that another thread found meanwhile.
   */
  void step(Runnable action) {
    callsUnderWay.incrementAndGet();
    try {
      requireUsable();
      try {
        action.run();
      } catch (RuntimeException e) {
        throw failed(e);
      } catch (Error e) {
        fail(new CollectiveException("a step ended early: " + e, e));
        throw e;
      }
      requireUsable();
    } finally {
      callsUnderWay.decrementAndGet();
    }
  }

  /** Within a step: exchanges the rows of these replicas, watched. */
  void exchange(Rows[] rows) {
    if (size() == 1) {
      return;
    }
    for (Rows mine : rows) {
      watchdog.enter(mine.rank());
    }
    try {
      devices.exchange(rows);
    } finally {
      for (Rows mine : rows) {
        watchdog.leave(mine.rank());
      }
    }
  }

  /** A collective over tensors of these replicas, watched. */
  void run(Collective... parts) {
    if (size() == 1) {
      return;
    }
    if (parts.length > 1) {
      requireNoCapture();
    }
    step(
        () -> {
          for (Collective mine : parts) {
            watchdog.enter(mine.rank());
          }
          try {
            devices.run(parts);
          } finally {
            for (Collective mine : parts) {
              watchdog.leave(mine.rank());
            }
          }
        });
  }

  /**
   * Before one thread enqueues the work of several replicas.
   *
   * @throws IllegalStateException if the stream of one of them is captured into a graph
   */
  void requireNoCapture() {
    for (Replica replica : replicas) {
      if (isCapturing(replica)) {
        throw new IllegalStateException(
            "one thread cannot capture the steps of several replicas into a graph, where NCCL may deadlock: use a thread for each (%s)"
                .formatted(replica));
      }
    }
  }

  /**
   * Before memory is given back, which no capture can contain.
   *
   * @throws IllegalStateException while the replica's stream is captured into a graph
   */
  void requireNoCapture(Replica replica) {
    boolean capturing = false;
    try {
      capturing = replica.device().isCapturing();
    } catch (DeviceException e) {
      fail(e);
    }
    if (capturing) {
      throw new IllegalStateException(
          "nothing of %s can be closed while its stream is captured into a graph"
              .formatted(replica));
    }
  }

  boolean isCapturing(Replica replica) {
    try {
      return replica.device().isCapturing();
    } catch (DeviceException e) {
      throw failed(e);
    }
  }

  /** See {@link Replica#reserve}. */
  long allocate(Replica replica, long bytes) {
    try {
      return replica.device().allocate(bytes);
    } catch (DeviceMemoryException e) {
      throw e;
    } catch (DeviceException e) {
      throw failed(e);
    }
  }

  /**
   * Waits until a replica's device runs nothing, so that giving back memory, which waits without a
   * limit, does not hang. Past the timeout the group is failed and aborted.
   *
   * @throws IllegalStateException if the device is stuck even then
   */
  void settle(Replica replica) {
    try {
      awaitIdle(replica);
      return;
    } catch (DeviceException | CollectiveException e) {
      fail(e);
    }
    if (!awaited(() -> isOver(replica), DRAIN_TIMEOUT)) {
      throw new IllegalStateException(
          "%s is stuck %d s after the group was aborted; its memory is not released"
              .formatted(replica, DRAIN_TIMEOUT.toSeconds()),
          failure.get());
    }
  }

  /**
   * Records what went wrong in the caller's step and aborts what is under way. Returns what to
   * throw: {@code e}, or what the group had already failed of, which {@code e} then only follows
   * from.
   */
  RuntimeException failed(RuntimeException e) {
    fail(e);
    RuntimeException known = failure.get();
    if (known == e || e.getCause() == known) {
      failureSeen = true;
      return e;
    }
    RuntimeException thrown = failureSeen ? hasFailed(known) : known;
    failureSeen = true;
    thrown.addSuppressed(e);
    return thrown;
  }

  private void fail(RuntimeException e) {
    if (failure.compareAndSet(null, e)) {
      for (Replica replica : replicas) {
        replica.device().control().host().aborted(1);
      }
      try {
        devices.abort();
      } catch (RuntimeException abortFailure) {
        e.addSuppressed(abortFailure);
      }
    }
  }

  void awaitIdle(Replica replica) {
    if (replica.device().isCapturing()) {
      throw new IllegalStateException(
          "nobody can wait for %s while its stream is captured into a graph".formatted(replica));
    }
    long start = System.nanoTime();
    int parked = 0;
    while (!replica.device().isIdle()) {
      long waited = System.nanoTime() - start;
      if (waited > timeout.toNanos()) {
        throw new CollectiveException(
            "%s did not finish what was enqueued within %.3f s: another replica is missing or late, or the device hangs"
                .formatted(replica, timeout.toMillis() / 1e3));
      }
      if (waited < SPIN_NANOS) {
        Thread.onSpinWait();
      } else {
        LockSupport.parkNanos(PARK_NANOS);
        if (++parked % PARKS_PER_LOOK == 0) {
          requireAlive();
        }
      }
    }
  }

  /** One whose peer's device is dead waits for nothing. */
  private void requireAlive() {
    for (Replica replica : replicas) {
      replica.device().requireAlive();
    }
  }

  private static CollectiveException mismatch(Replica replica, syncbn_control control) {
    return new CollectiveException(
        "the replicas are at different steps: rank %d is at %s, rank %d at %s"
            .formatted(
                replica.rank(),
                Signature.describe(control.expected()),
                control.mismatch() - 1,
                Signature.describe(control.found())));
  }

  /** Options of a group. Exactly one of {@link #cpus} and {@link #gpus} must be called. */
  public static final class Builder {
    private static final int MOST_CPU_REPLICAS = 1024;
    private static final int MOST_THREADS = 256;
    private static final Duration LONGEST_TIMEOUT = Duration.ofDays(365);

    private Integer cpus;
    private int[] gpus;
    private Duration timeout = DEFAULT_TIMEOUT;
    private int threads = Math.min(Runtime.getRuntime().availableProcessors(), MOST_THREADS);
    private Consumer<String> trace;

    private Builder() {}

    /** This many replicas on the CPU: 1 to 1,024. */
    public Builder cpus(int n) {
      if (n < 1 || n > MOST_CPU_REPLICAS) {
        throw new IllegalArgumentException(
            "CPU replicas must be 1 to " + MOST_CPU_REPLICAS + ", not " + n);
      }
      this.cpus = n;
      return this;
    }

    /** The GPUs with these ordinals, in rank order; all GPUs if none is named. */
    public Builder gpus(int... ordinals) {
      this.gpus = ordinals.clone();
      return this;
    }

    /**
     * How long replicas wait for each other, and host calls for a device. Default {@link
     * #DEFAULT_TIMEOUT}.
     */
    public Builder timeout(Duration timeout) {
      if (timeout.isNegative() || timeout.isZero() || timeout.compareTo(LONGEST_TIMEOUT) > 0) {
        throw new IllegalArgumentException(
            "timeout must be above 0 and at most " + LONGEST_TIMEOUT + ", not " + timeout);
      }
      this.timeout = timeout;
      return this;
    }

    /**
     * Threads that the CPU kernels of the whole group use, the calling one included: 1 to 256.
     * Default: the processors.
     */
    public Builder threads(int threads) {
      if (threads < 1 || threads > MOST_THREADS) {
        throw new IllegalArgumentException(
            "threads must be 1 to " + MOST_THREADS + ", not " + threads);
      }
      this.threads = threads;
      return this;
    }

    /**
     * Receives a line for each kernel launch and each collective call, by device. For looking, not
     * for speed.
     */
    public Builder trace(Consumer<String> trace) {
      this.trace = Objects.requireNonNull(trace, "trace");
      return this;
    }

    /** See {@link ReplicaGroup#gpus(int...)} for what is thrown. */
    public ReplicaGroup build() {
      if ((cpus == null) == (gpus == null)) {
        throw new IllegalStateException("call exactly one of cpus(n) and gpus(...)");
      }
      DeviceGroup devices =
          cpus != null
              ? new CpuDeviceGroup(cpus, threads)
              : new CudaDeviceGroup(ordinals(), timeout);
      return new ReplicaGroup(
          trace == null ? devices : new TracedDeviceGroup(devices, trace), timeout);
    }

    private int[] ordinals() {
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
}
