package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.device.DeviceUnavailableException;
import io.github.syncbn4j.device.cuda.CudaDeviceGroup;
import io.github.syncbn4j.job.JobEnvironment;
import io.github.syncbn4j.job.Rendezvous;
import io.github.syncbn4j.job.SideChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;

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

  /** How long {@link #close()} lets other threads finish short calls before it aborts them. */
  private static final Duration CALL_GRACE = Duration.ofMillis(50);

  private final DeviceGroup devices;
  private final List<Replica> replicas;
  private final AtomicInteger layerIds = new AtomicInteger();
  private final Set<SyncBatchNormalization> layers = ConcurrentHashMap.newKeySet();
  private final CallGate gate = new CallGate("the group");
  private final GroupHealth health;
  private final GroupCalls calls;
  private final GroupWaits waits;
  private final GroupCollectives collectives;
  private final GroupSplits splits;

  /**
   * @param channel on which ranks say what they call
   * @param rendezvous the way to other processes; null if there are none, or only NCCL leads to
   *     them
   * @param name of this group in the rendezvous
   */
  ReplicaGroup(
      DeviceGroup devices,
      SideChannel channel,
      Rendezvous rendezvous,
      String name,
      Duration timeout) {
    this.devices = devices;
    List<Replica> members = new ArrayList<>();
    for (Device device : devices.devices()) {
      members.add(new Replica(this, devices.firstRank() + members.size(), device));
    }
    this.replicas = List.copyOf(members);
    this.health = new GroupHealth(devices, replicas, layers, channel, timeout);
    this.calls = new GroupCalls(devices, replicas, health, gate);
    this.waits = new GroupWaits(replicas, health, timeout);
    this.collectives = new GroupCollectives(devices, replicas, calls);
    this.splits = new GroupSplits(devices, rendezvous, name, timeout);
    health.watchdog().start();
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
    return builder().auto().build();
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
    return splits.split(this, color, key);
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
    calls.check();
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
    collectives.run(tensors, Collective.SUM);
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
    collectives.run(tensors, root);
  }

  void requireRank(int rank) {
    if (rank < 0 || rank >= size()) {
      throw new IllegalArgumentException(
          "rank " + rank + " is not in the group: 0 to " + (size() - 1));
    }
  }

  /** What the group failed of, if it did. */
  public Optional<RuntimeException> failure() {
    return Optional.ofNullable(health.failure());
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
      if (gate.isShut()) {
        return;
      }
      replicas.forEach(Replica::requireNoCapture);
      gate.shut();
    }
    if (!Waiting.until(gate::isEmpty, CALL_GRACE)) {
      health.fail(
          new CollectiveException("the group was closed while another thread was in a step"));
    }
    if (health.failure() == null) {
      try {
        replicas.forEach(waits::awaitIdle);
      } catch (RuntimeException e) {
        health.fail(e);
      }
      health.detectMismatch();
    }
    try {
      if (health.failure() != null) {
        waits.awaitEndOfAborted(gate);
      }
    } finally {
      health.close();
    }
    List<Runnable> releases = new ArrayList<>();
    layers.forEach(layer -> releases.add(layer::close));
    replicas.forEach(replica -> releases.add(replica::closeTensors));
    releases.add(devices::close);
    try {
      Cleanup.runAll(releases);
    } catch (RuntimeException e) {
      health.failAtTheEnd(e);
    }
    health.requireSeen();
  }

  /** As in {@code group of 2: rank 0 on cpu:0, rank 1 on cpu:1}, those of this process. */
  @Override
  public String toString() {
    return "group of %d: %s"
        .formatted(
            size(), replicas.stream().map(Replica::toString).collect(Collectors.joining(", ")));
  }

  // ------------------------------------------------------------ for replicas and layers

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
      gate.requireOpen();
      layers.add(layer);
    }
  }

  void forget(SyncBatchNormalization layer) {
    layers.remove(layer);
  }

  GroupHealth health() {
    return health;
  }

  GroupCalls calls() {
    return calls;
  }

  GroupWaits waits() {
    return waits;
  }

  GroupCollectives collectives() {
    return collectives;
  }

  /**
   * Options of a group. Exactly one of {@link #cpus}, {@link #gpus}, {@link #auto}, {@link
   * #environment} and {@link #rank} must be called.
   */
  public static final class Builder extends GroupOptions {
    private Builder() {}

    /**
     * See {@link ReplicaGroup#gpus(int...)} and {@link ReplicaGroup#fromEnvironment} for what is
     * thrown.
     */
    public ReplicaGroup build() {
      return new GroupMaker(this).make();
    }
  }
}
