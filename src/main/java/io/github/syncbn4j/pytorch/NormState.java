package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.StateMemory;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.pytorch.AutoGradMode;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** The state of one replica's batch norm: libtorch's tensors, and the memory of the layer's. */
final class NormState {
  private final Map<String, Home> homes = new LinkedHashMap<>();
  private final Replica replica;
  private final String device;
  private final boolean copied;

  /**
   * Statistics that the layer has and an untracked batch norm has not are added. Nobody reads them.
   *
   * @throws IllegalArgumentException unless the batch norm is on the replica's device or the CPU,
   *     and not synchronized yet
   */
  NormState(Replica replica, NativeNorm norm) {
    if (norm.runningMean() != null && norm.runningMean().numel() != norm.channels()) {
      throw new IllegalArgumentException(
          "a batch norm of %d channels has a running mean of %d: it is synchronized already, and what was returned then is to be called"
              .formatted(norm.channels(), norm.runningMean().numel()));
    }
    this.replica = replica;
    Tensor any = norm.weight() == null ? norm.runningMean() : norm.weight();
    this.device = any == null ? Tensors.libtorchDevice(replica) : Tensors.device(any);
    this.copied = !device.equals(Tensors.device(replica));
    if (copied && !device.equals("cpu")) {
      throw new IllegalArgumentException(
          "a batch norm on %s for %s: move the model first".formatted(device, replica));
    }
    put("gamma", "weight", norm.weight());
    put("beta", "bias", norm.bias());
    if (norm.runningMean() != null) {
      put("moving_mean", "running_mean", norm.runningMean());
      put("moving_variance", "running_var", norm.runningVar());
      put(StateMemory.COUNTED_STEPS, "num_batches_tracked", asLong(norm.numBatchesTracked()));
    } else {
      ScalarType type = any == null ? ScalarType.Float : any.scalar_type();
      put("moving_mean", "the mean", zeros(type, norm.channels()));
      put("moving_variance", "the variance", zeros(type, norm.channels()));
      put(StateMemory.COUNTED_STEPS, "the count", zeros(ScalarType.Long, 1));
    }
  }

  private void put(String variable, String name, Tensor tensor) {
    if (tensor != null) {
      homes.put(
          variable, copied ? new CopiedHome(replica, name, tensor) : new SharedHome(name, tensor));
    }
  }

  /** Converting a module to another type converts its count as well. */
  @SuppressWarnings("try")
  private static Tensor asLong(Tensor count) {
    try (AutoGradMode ignored = new AutoGradMode(false);
        Tensor converted = count.to(ScalarType.Long)) {
      count.set_data(converted);
    }
    return count;
  }

  private Tensor zeros(ScalarType type, long length) {
    try (TensorOptions options = Tensors.options(device, type)) {
      return torch.zeros(new long[] {length}, options).retainReference();
    }
  }

  /** Where libtorch has this batch norm and its inputs: {@code cpu} or {@code cuda:1}. */
  String device() {
    return device;
  }

  /** Whether libtorch's tensors are on the CPU and the replica is not. */
  boolean copied() {
    return copied;
  }

  boolean has(String variable) {
    return homes.containsKey(variable);
  }

  /**
   * @throws IllegalArgumentException if the layer has the variable in another type
   */
  long address(String variable, long bytes) {
    Home home = homes.get(variable);
    if (home.tensor().nbytes() != bytes) {
      throw new IllegalArgumentException(
          "x does not go with %s: a Double x takes Double parameters, every other Float ones"
              .formatted(home));
    }
    return home.address();
  }

  /** See {@link Home#toLayer}. */
  void toLayer() {
    homes.values().forEach(Home::toLayer);
  }

  /** See {@link Home#fromLayer}. */
  void fromLayer() {
    homes.values().forEach(Home::fromLayer);
  }

  /** The tensors stay. */
  void close() {
    homes.values().forEach(Home::close);
  }
}
