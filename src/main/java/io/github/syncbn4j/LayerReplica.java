package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.job.Signature;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.LongPointer;

/**
 * A layer's share on one replica: its variables, its workspace, its step count, and the passes of
 * this replica alone.
 */
final class LayerReplica implements AutoCloseable {
  private final Replica replica;
  private final int layerId;
  private final LayerConfig config;
  private final Map<String, DeviceTensor> variables = new LinkedHashMap<>();
  private final Map<String, DeviceTensor> gradients = new LinkedHashMap<>();

  /** Kept, so that what it gave stays reachable. Null if the state is the layer's own. */
  private final StateMemory memory;

  private long workspace;
  private long updates;
  private PassPool passes;
  private long step;

  /**
   * @param initial the variables' values by name, in Keras' order
   * @param memory where the state is; null to start from the initial values in memory of its own
   */
  LayerReplica(
      Replica replica,
      int layerId,
      LayerConfig config,
      Map<String, double[]> initial,
      StateMemory memory) {
    this.replica = replica;
    this.layerId = layerId;
    this.config = config;
    this.memory = memory;
    Device device = replica.device();
    try {
      initial.forEach(
          (name, values) -> {
            variables.put(name, memory == null ? allocate() : wrap(name));
            if (memory == null) {
              variables.get(name).copyFromHost(values);
            }
          });
      for (String name : List.of("gamma", "beta")) {
        if (initial.containsKey(name)) {
          DeviceTensor gradient = allocate();
          gradients.put(name, gradient);
          gradient.copyFromHost(new double[initial.get(name).length]);
        }
      }
      long bytes = device.workspaceBytes(config.channels());
      workspace = replica.reserve(bytes);
      device.zero(workspace, bytes);
      if (memory == null) {
        updates = replica.reserve(Long.BYTES);
        device.zero(updates, Long.BYTES);
      } else {
        updates = memory.address(replica, StateMemory.COUNTED_STEPS, Long.BYTES);
      }
    } catch (RuntimeException | Error e) {
      Cleanup.after(e, this::close);
      throw e;
    }
  }

  private DeviceTensor allocate() {
    return replica.allocate(config.dtype().ofParameters(), config.input().parameterShape());
  }

  private DeviceTensor wrap(String name) {
    DType dtype = config.dtype().ofParameters();
    long address = memory.address(replica, name, config.channels() * dtype.bytes());
    return replica.wrap(address, dtype, config.input().parameterShape());
  }

  Replica replica() {
    return replica;
  }

  LayerConfig config() {
    return config;
  }

  /** By name, in Keras' order. */
  Map<String, DeviceTensor> variables() {
    return Collections.unmodifiableMap(variables);
  }

  /** Of gamma and beta, by the variable's name. */
  Map<String, DeviceTensor> gradients() {
    return Collections.unmodifiableMap(gradients);
  }

  /** 0 if the layer has no such variable. */
  long address(String variable) {
    return address(variables.get(variable));
  }

  /** 0 if the layer has no such variable. */
  long gradientAddress(String variable) {
    return address(gradients.get(variable));
  }

  private static long address(DeviceTensor variable) {
    return variable == null ? 0 : variable.address();
  }

  long workspace() {
    return workspace;
  }

  /** Address of the number of training steps that changed the state. */
  long updates() {
    return updates;
  }

  /** The number of training steps that changed the state, after everything that is enqueued. */
  long countedSteps() {
    try (LongPointer host = new LongPointer(1)) {
      replica.read(host, updates, Long.BYTES);
      return host.get();
    }
  }

  /** The same as it is now: for a group that has failed, once the device is idle. */
  long countedStepsLeft() {
    try (LongPointer host = new LongPointer(1)) {
      replica.device().copyToHost(host, updates, Long.BYTES);
      return host.get();
    }
  }

  void setCountedSteps(long steps) {
    try (LongPointer host = new LongPointer(new long[] {steps})) {
      replica.write(updates, host, Long.BYTES);
    }
  }

  /** The number of the training step that begins now. */
  long nextStep() {
    return step++;
  }

  double signature(long ofStep, boolean backward) {
    return Signature.of(layerId, ofStep, backward);
  }

  synchronized PassPool passes(SyncBatchNormalization layer) {
    if (passes == null) {
      passes = new PassPool(layer, Collections.singletonList(this));
    }
    return passes;
  }

  /**
   * @throws IllegalArgumentException unless the tensor is of the layer's dtype and on this
   *     replica's device
   */
  void checkTensor(DeviceTensor tensor, String name) {
    replica.requireHere(tensor, name);
    if (tensor.dtype() != config.dtype()) {
      throw new IllegalArgumentException(
          "%s must be %s, the layer's dtype, not %s"
              .formatted(name, config.dtype(), tensor.dtype()));
    }
  }

  @Override
  public void close() {
    List<Runnable> releases = new ArrayList<>();
    if (passes != null) {
      releases.add(passes::close);
    }
    variables.values().forEach(variable -> releases.add(variable::close));
    gradients.values().forEach(gradient -> releases.add(gradient::close));
    long[] owned = {workspace, memory == null ? updates : 0};
    workspace = 0;
    updates = 0;
    for (long address : owned) {
      releases.add(() -> replica.free(address));
    }
    Cleanup.runAll(releases);
  }
}
