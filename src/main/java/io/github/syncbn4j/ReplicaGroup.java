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
import io.github.syncbn4j.job.Call;
import io.github.syncbn4j.job.JobEnvironment;
import io.github.syncbn4j.job.JobException;
import io.github.syncbn4j.job.Rendezvous;
import io.github.syncbn4j.job.Roll;
import io.github.syncbn4j.job.SideChannel;
import io.github.syncbn4j.job.Signature;
import java.time.Duration;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
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
 * made. A step that failed changed no state. If some replicas of this process have taken a step,
 * and others have not, as where launching its last kernel failed on one of them, a suppressed
 * exception says which; {@link SyncBatchNormalization#countedSteps} says it in any process.
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

  /** How long after an abort a device that does not end what was enqueued is called stuck. */
  private static final Duration STUCK_AFTER = Duration.ofMillis(300);

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

  /** The way to other processes; null if there are none, or only NCCL leads to them. */
  private final Rendezvous rendezvous;

  /** Of this group in the rendezvous. */
  private final String name;

  private final AtomicInteger splits = new AtomicInteger();
  private volatile boolean failureSeen;
  private volatile boolean closed;

  private ReplicaGroup(
      DeviceGroup devices,
      SideChannel channel,
      Rendezvous rendezvous,
      String name,
      Duration timeout) {
    this.devices = devices;
    this.rendezvous = rendezvous;
    this.name = name;
    this.timeout = timeout;
    List<Replica> members = new ArrayList<>();
    for (Device device : devices.devices()) {
      members.add(new Replica(this, devices.firstRank() + members.size(), device));
    }
    this.replicas = List.copyOf(members);
    this.watchdog =
        new Watchdog(devices.firstRank(), members.size(), channel, timeout, this::conclude);
    watchdog.start();
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

  /**
   * One rank of a job of several processes, each with a GPU of its own, as the launcher's
   * environment variables say: those of torchrun, mpirun or srun, see {@link JobEnvironment}. The
   * GPU is the one with the process's local rank, or the only one that it sees. Waits for all
   * processes.
   *
   * @throws IllegalArgumentException if variables are missing or contradict each other
   * @throws DeviceUnavailableException as {@link #gpus()}: CPU replicas in several processes are
   *     not offered
   * @throws CollectiveException if not all ranks come within the timeout; names those that are
   *     missing
   */
  public static ReplicaGroup fromEnvironment() {
    return builder().environment(System.getenv()).build();
  }

  /**
   * One rank of a group of several processes that have another way to hand each other an id. There
   * is no side channel then: a rank that is lost or calls something else is found when the host
   * waits, without its name.
   *
   * @param uniqueId from {@link #newUniqueId()} of one process, the same in all
   * @param device the GPU's ordinal
   * @throws CollectiveException if not all ranks come within the timeout
   */
  public static ReplicaGroup rank(byte[] uniqueId, int worldSize, int rank, int device) {
    return builder().rank(uniqueId, worldSize, rank, device).build();
  }

  /** What one process of a job hands to all others, for {@link #rank}: 128 bytes. */
  public static byte[] newUniqueId() {
    return CudaDeviceGroup.newId();
  }

  /**
   * A group of some of this group's ranks: those that say the same colour, numbered by key, then by
   * rank. All ranks have to call it. It has a stream of its own on this replica's GPU, and is
   * closed on its own.
   *
   * @param color 0 or more
   * @throws IllegalStateException where this process has several replicas: those can be grouped by
   *     {@link #gpus(int...)}
   */
  public ReplicaGroup split(int color, int key) {
    if (color < 0) {
      throw new IllegalArgumentException("color must be 0 or more, not " + color);
    }
    if (replicas.size() == size() && size() > 1) {
      throw new IllegalStateException(
          "all replicas of this group are in one process: make groups of them with gpus(...)");
    }
    String part = "%s/%d:%d".formatted(name, splits.getAndIncrement(), color);
    AtomicReference<DeviceGroup> made = new AtomicReference<>();
    try {
      step(
          replicas,
          () -> {
            announce(replicas.get(0), Call.SPLIT.what(), Call.SPLIT.size(), Call.SPLIT.type());
            made.set(devices.split(color, key, timeout));
          });
    } catch (RuntimeException e) {
      if (made.get() != null) { // the group has failed meanwhile, and not all have their part
        Cleanup.after(e, made.get()::abort);
        Cleanup.after(e, made.get()::close);
      }
      throw e;
    }
    DeviceGroup ofPart = made.get();
    SideChannel channel =
        rendezvous == null
            ? SideChannel.NONE
            : rendezvous.group(part, ofPart.size(), ofPart.firstRank());
    return new ReplicaGroup(ofPart, channel, rendezvous, part, timeout);
  }

  public static Builder builder() {
    return new Builder();
  }

  /** Number of replicas, in all processes of the job. */
  public int size() {
    return devices.size();
  }

  /** Those of this process, in rank order. */
  public List<Replica> replicas() {
    return replicas;
  }

  /**
   * @throws IllegalArgumentException for a rank that is not in the group, or in another process
   */
  public Replica replica(int rank) {
    requireRank(rank);
    int first = devices.firstRank();
    if (rank < first || rank >= first + replicas.size()) {
      throw new IllegalArgumentException(
          "rank %d is in another process: this one has %s".formatted(rank, replicas));
    }
    return replicas.get(rank - first);
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
    run(replicas, parts(tensors, Collective.SUM));
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
    run(replicas, parts(tensors, root));
  }

  void requireRank(int rank) {
    if (rank < 0 || rank >= size()) {
      throw new IllegalArgumentException(
          "rank " + rank + " is not in the group: 0 to " + (size() - 1));
    }
  }

  private Collective[] parts(List<DeviceTensor> tensors, int root) {
    if (tensors.size() != replicas.size()) {
      throw new IllegalArgumentException(
          "%d tensors, the group has %d replicas here".formatted(tensors.size(), replicas.size()));
    }
    Collective[] parts = new Collective[replicas.size()];
    DeviceTensor first = tensors.get(0);
    for (int i = 0; i < parts.length; i++) {
      DeviceTensor tensor = tensors.get(i);
      parts[i] = replicas.get(i).part(tensor, root);
      if (tensor.dtype() != first.dtype()
          || !tensor.hasShape(first.shape())
          || !tensor.hasStrides(first.strides())) {
        throw new IllegalArgumentException(
            "the tensor of rank %d is %s, that of rank %d is %s"
                .formatted(replicas.get(i).rank(), tensor, replicas.get(0).rank(), first));
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
    try {
      if (failure.get() != null) {
        awaitEndOfAborted();
      }
    } finally {
      watchdog.close();
    }
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

  /** Gives a new layer's variables in all processes the values that rank 0 has drawn. */
  void equalize(List<LayerReplica> members) {
    if (replicas.size() < size()) {
      for (LayerReplica member : members) {
        for (DeviceTensor variable : member.variables().values()) {
          member.replica().broadcast(variable, 0);
        }
      }
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
  void step(List<Replica> members, Runnable action) {
    callsUnderWay.incrementAndGet();
    try {
      requireUsable();
      for (int i = 0; i < members.size(); i++) {
        watchdog.enter(members.get(i).rank());
      }
      try {
        action.run();
      } catch (RuntimeException e) {
        throw failed(e);
      } catch (Error e) {
        fail(new CollectiveException("a step ended early: " + e, e));
        throw e;
      } finally {
        for (int i = 0; i < members.size(); i++) {
          watchdog.leave(members.get(i).rank());
        }
      }
      requireUsable();
    } finally {
      callsUnderWay.decrementAndGet();
    }
  }

  /** A replica comes to what all replicas have to come to; see {@link Call}. */
  void announce(Replica replica, long what, long size, int type) {
    if (size() > 1) {
      watchdog.announce(replica.rank(), what, size, type);
    }
  }

  /** Within a step: exchanges the rows of these replicas. */
  void exchange(Rows[] rows) {
    if (size() > 1) {
      devices.exchange(rows);
    }
  }

  /** A collective over tensors of one replica, or of all of this process. */
  private void run(List<Replica> members, Collective... parts) {
    if (size() == 1) {
      return;
    }
    if (parts.length > 1) {
      requireNoCapture();
    }
    boolean captured = isCapturing(members.get(0));
    step(
        members,
        () -> {
          for (Collective part : parts) {
            if (!captured) {
              watchdog.announce(
                  part.rank(), Call.collective(part.root()), part.elements(), part.dtype());
            }
          }
          devices.run(parts);
        });
  }

  /** The collective of one replica. */
  void run(Replica member, Collective part) {
    run(List.of(member), part);
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
    if (known == e || e.getCause() == known || known.getCause() == e) {
      failureSeen = true;
      return known.getCause() == e ? known : e;
    }
    RuntimeException thrown = failureSeen ? hasFailed(known) : known;
    failureSeen = true;
    thrown.addSuppressed(e);
    return thrown;
  }

  private void fail(RuntimeException e) {
    if (e instanceof CollectiveException && failure.get() == null) {
      watchdog.hear();
    }
    conclude(e);
  }

  private void conclude(RuntimeException reason) {
    if (failure.compareAndSet(null, reason)) {
      for (Replica replica : replicas) {
        replica.device().control().host().aborted(1);
      }
      watchdog.tell(reason.getMessage());
      try {
        devices.abort();
      } catch (RuntimeException abortFailure) {
        reason.addSuppressed(abortFailure);
      }
      noteWhatIsLeft(reason);
    }
  }

  /**
   * What shows only after the abort: which devices hang, and which replicas of this process have
   * taken a step that was enqueued where others have not.
   */
  private void noteWhatIsLeft(RuntimeException reason) {
    awaited(() -> replicas.stream().allMatch(this::isOver), STUCK_AFTER);
    Map<Boolean, List<Replica>> over =
        replicas.stream().collect(Collectors.partitioningBy(this::isOver));
    if (!over.get(false).isEmpty()) {
      reason.addSuppressed(
          new CollectiveException(over.get(false) + " still at work after the abort"));
    }
    for (SyncBatchNormalization layer : layers) {
      try {
        String differences = layer.differences(over.get(true));
        if (differences != null) {
          reason.addSuppressed(new CollectiveException("states differ: " + differences));
        }
      } catch (DeviceException | IllegalStateException e) {
        // A device that cannot be read any more, or a layer that is closed.
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
      if (watchdog.isOverdue(start)) {
        requireAlive();
        throw new CollectiveException(
            "%s did not finish what was enqueued within %.3f s (its last call: %s): a device hangs, or a rank that cannot be asked does not come"
                .formatted(replica, timeout.toMillis() / 1e3, watchdog.lastCall(replica.rank())));
      }
      if (System.nanoTime() - start < SPIN_NANOS) {
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

  /**
   * Options of a group. Exactly one of {@link #cpus}, {@link #gpus}, {@link #environment} and
   * {@link #rank} must be called.
   */
  public static final class Builder {
    private static final int MOST_CPU_REPLICAS = 1024;
    private static final int MOST_THREADS = 256;
    private static final Duration LONGEST_TIMEOUT = Duration.ofDays(365);
    private static final String TIMEOUT_PROPERTY = "syncbn.timeout";
    private static final int UNIQUE_ID_BYTES = 128;
    private static final Duration LISTENING_PERIOD = Duration.ofMillis(50);

    private record Member(byte[] id, int worldSize, int rank, int device) {}

    private Integer cpus;
    private int[] gpus;
    private JobEnvironment job;
    private Member member;
    private Duration timeout = defaultTimeout();
    private int threads = Math.min(Runtime.getRuntime().availableProcessors(), MOST_THREADS);
    private Consumer<String> trace;

    private Builder() {}

    private static Duration defaultTimeout() {
      String text = System.getProperty(TIMEOUT_PROPERTY);
      if (text == null) {
        return DEFAULT_TIMEOUT;
      }
      try {
        return checked(Duration.parse("PT" + text.strip()));
      } catch (DateTimeParseException | IllegalArgumentException e) {
        throw new IllegalArgumentException(
            "-D%s must be a time such as 20s or 10m, not '%s'".formatted(TIMEOUT_PROPERTY, text),
            e);
      }
    }

    private static Duration checked(Duration timeout) {
      if (timeout.isNegative() || timeout.isZero() || timeout.compareTo(LONGEST_TIMEOUT) > 0) {
        throw new IllegalArgumentException(
            "timeout must be above 0 and at most " + LONGEST_TIMEOUT + ", not " + timeout);
      }
      return timeout;
    }

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

    /** See {@link ReplicaGroup#fromEnvironment}. */
    public Builder environment(Map<String, String> variables) {
      this.job = JobEnvironment.of(variables);
      return this;
    }

    /** See {@link ReplicaGroup#rank}. */
    public Builder rank(byte[] uniqueId, int worldSize, int rank, int device) {
      if (worldSize < 1 || rank < 0 || rank >= worldSize) {
        throw new IllegalArgumentException(
            "rank %d of %d: it must be 0 to %d".formatted(rank, worldSize, worldSize - 1));
      }
      if (uniqueId.length != UNIQUE_ID_BYTES) {
        throw new IllegalArgumentException(
            "an id has %d bytes, not %d".formatted(UNIQUE_ID_BYTES, uniqueId.length));
      }
      this.member = new Member(uniqueId.clone(), worldSize, rank, device);
      return this;
    }

    /**
     * How long replicas wait for each other, and host calls for a device. Default: the system
     * property {@code syncbn.timeout}, as in {@code 20s} or {@code 10m}, or else {@link
     * #DEFAULT_TIMEOUT}.
     */
    public Builder timeout(Duration timeout) {
      this.timeout = checked(timeout);
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

    /**
     * See {@link ReplicaGroup#gpus(int...)} and {@link ReplicaGroup#fromEnvironment} for what is
     * thrown.
     */
    public ReplicaGroup build() {
      if (Stream.of(cpus, gpus, job, member).filter(Objects::nonNull).count() != 1) {
        throw new IllegalStateException(
            "call exactly one of cpus(n), gpus(...), environment(...) and rank(...)");
      }
      if (job != null && job.worldSize() > 1) {
        return inJob();
      }
      DeviceGroup devices;
      if (cpus != null) {
        devices = new CpuDeviceGroup(cpus, threads);
      } else if (gpus != null) {
        devices = CudaDeviceGroup.of(requireThere(gpus), timeout);
      } else if (job != null) {
        devices = CudaDeviceGroup.of(gpuOfJob(), timeout);
      } else {
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
        rendezvous = new Rendezvous(job, job.rank() == 0 ? newUniqueId() : new byte[0], timeout);
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
            CudaDeviceGroup.rank(
                gpu[0], job.rank(), job.worldSize(), rendezvous.id(), timeout, lost);
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
          trace == null ? devices : new TracedDeviceGroup(devices, trace),
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
}
