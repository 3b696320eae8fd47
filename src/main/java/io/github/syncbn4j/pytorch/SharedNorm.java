package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Module;

/**
 * One batch norm of a network, over all replicas: its state on each of this process, and the layers
 * that normalize with it, one for each type of input that comes.
 */
final class SharedNorm {
  private final ReplicaGroup group;
  private final NativeNorm options;
  private final boolean relu;
  private final List<NormState> states = new ArrayList<>();
  private final Map<DType, SyncBatchNormalization> layers = new EnumMap<>(DType.class);

  /**
   * The group keeps the layers, these their memory and so this, and this the replicas' norms with
   * the hooks of what is still to run backward: a network may be dropped before its loss is.
   */
  private List<ReplicaNorm> norms = List.of();

  private boolean closed;

  private SharedNorm(ReplicaGroup group, List<NativeNorm> norms, boolean relu) {
    this.group = group;
    this.options = norms.get(0);
    this.relu = relu;
    for (Replica replica : group.replicas()) {
      NativeNorm norm = norms.get(index(replica));
      if (!norm.signature().equals(options.signature())) {
        throw new IllegalArgumentException(
            "rank %d has %s, rank %d %s"
                .formatted(
                    replica.rank(),
                    norm.signature(),
                    group.replicas().get(0).rank(),
                    options.signature()));
      }
      states.add(new NormState(replica, norm));
    }
  }

  /**
   * Binds a batch norm of each replica together.
   *
   * @param norms of this process's replicas, in rank order and on their devices
   * @param relu whether a ReLU follows
   * @throws IllegalArgumentException unless all have the same options
   */
  static List<ReplicaNorm> bind(ReplicaGroup group, List<NativeNorm> norms, boolean relu) {
    SharedNorm shared = new SharedNorm(group, norms, relu);
    shared.norms =
        group.replicas().stream()
            .map(replica -> new ReplicaNorm(norms.get(index(replica)), shared, replica))
            .toList();
    return shared.norms;
  }

  /**
   * Makes a batch norm for each replica of this process, on its device, and binds them together.
   */
  static <N extends Module, S> List<S> create(
      ReplicaGroup group,
      boolean relu,
      Supplier<N> norm,
      Function<N, NativeNorm> nativeOf,
      BiFunction<N, ReplicaNorm, S> synced) {
    List<N> norms = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      N made = norm.get();
      try (Device device = DataParallel.device(replica)) {
        made.to(device, false);
      }
      norms.add(made);
    }
    List<ReplicaNorm> bound = bind(group, norms.stream().map(nativeOf).toList(), relu);
    return bound.stream().map(b -> synced.apply(norms.get(index(b.replica())), b)).toList();
  }

  boolean relu() {
    return relu;
  }

  NormState state(Replica replica) {
    return states.get(index(replica));
  }

  /** Among the replicas of this process. */
  private static int index(Replica replica) {
    return replica.group().replicas().indexOf(replica);
  }

  /**
   * Built when the first replica has an input of this type.
   *
   * @throws IllegalStateException if it was reverted
   */
  synchronized SyncBatchNormalization layer(DType dtype) {
    if (closed) {
      throw new IllegalStateException("the batch norm was reverted");
    }
    return layers.computeIfAbsent(dtype, this::build);
  }

  private SyncBatchNormalization build(DType dtype) {
    NormState first = states.get(0);
    SyncBatchNormalization.Builder builder =
        SyncBatchNormalization.builder(group, options.channels())
            .dtype(dtype)
            .axis(1)
            .epsilon(options.eps())
            .scale(first.has("gamma"))
            .center(first.has("beta"))
            .unbiasedRunningVariance(true)
            .relu(relu)
            .stateMemory((replica, name, bytes) -> state(replica).address(name, bytes));
    // PyTorch's momentum is the weight of the new value, the layer's that of the old one.
    return options.momentum() == null
        ? builder.cumulativeAverage().build()
        : builder.momentum(1 - options.momentum()).build();
  }

  /** Idempotent. The tensors stay. */
  synchronized void close() {
    closed = true;
    layers.values().forEach(SyncBatchNormalization::close);
    layers.clear();
    states.forEach(NormState::close);
  }
}
