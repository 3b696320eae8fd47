package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Objects;

/**
 * A layer's share on one replica: its variables, its workspace, its step count, and the passes of
 * this replica alone.
 */
final class LayerReplica implements AutoCloseable {
  private final Replica replica;
  private final int layerId;
  private final LayerConfig config;
  private final List<DeviceTensor> variables = new ArrayList<>();
  private final DeviceTensor gamma;
  private final DeviceTensor beta;
  private final DeviceTensor movingMean;
  private final DeviceTensor movingVariance;
  private final DeviceTensor gammaGradient;
  private final DeviceTensor betaGradient;
  private long workspace;
  private PassPool passes;
  private long step;

  LayerReplica(Replica replica, int layerId, LayerConfig config) {
    this.replica = replica;
    this.layerId = layerId;
    this.config = config;
    try {
      gamma = config.scale() ? variable(1) : null;
      beta = config.center() ? variable(0) : null;
      movingMean = variable(0);
      movingVariance = variable(1);
      gammaGradient = config.scale() ? variable(0) : null;
      betaGradient = config.center() ? variable(0) : null;
      Device device = replica.device();
      long bytes = device.workspaceBytes(config.channels());
      workspace = device.allocate(bytes);
      device.zero(workspace, bytes);
    } catch (RuntimeException e) {
      Cleanup.after(e, this::close);
      throw e;
    }
  }

  private DeviceTensor variable(float initial) {
    DeviceTensor variable = replica.allocate(DType.FLOAT32, config.channels());
    variables.add(variable);
    float[] values = new float[Math.toIntExact(config.channels())];
    Arrays.fill(values, initial);
    variable.copyFromHost(values);
    return variable;
  }

  Replica replica() {
    return replica;
  }

  LayerConfig config() {
    return config;
  }

  DeviceTensor gamma() {
    return gamma;
  }

  DeviceTensor beta() {
    return beta;
  }

  DeviceTensor movingMean() {
    return movingMean;
  }

  DeviceTensor movingVariance() {
    return movingVariance;
  }

  DeviceTensor gammaGradient() {
    return gammaGradient;
  }

  DeviceTensor betaGradient() {
    return betaGradient;
  }

  long workspace() {
    return workspace;
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
   * @throws IllegalArgumentException unless the tensor is float32 {@code [..., channels]},
   *     row-major, on this replica's device
   */
  void checkTensor(DeviceTensor tensor, String name) {
    Objects.requireNonNull(tensor, name);
    tensor.address();
    if (tensor.dtype() != DType.FLOAT32) {
      throw new IllegalArgumentException(name + " must be float32, not " + tensor.dtype());
    }
    if (tensor.rank() < 2) {
      throw new IllegalArgumentException(
          name + " must have rank 2 or more, not " + tensor.rank() + ": " + tensor);
    }
    long channels = tensor.dimension(tensor.rank() - 1);
    if (channels != config.channels()) {
      throw new IllegalArgumentException(
          "%s has %d channels in its last dimension, the layer has %d: %s"
              .formatted(name, channels, config.channels(), tensor));
    }
    if (!tensor.isRowMajor()) {
      throw new IllegalArgumentException(name + " must be row-major: " + tensor);
    }
    if (!tensor.device().memorySpace().equals(replica.device().memorySpace())) {
      throw new IllegalArgumentException(
          "%s is on %s, the replica is %s".formatted(name, tensor.device().id(), replica));
    }
  }

  /** As {@link #checkTensor}, and of the same shape as {@code other}. */
  void checkSame(DeviceTensor tensor, String name, DeviceTensor other) {
    checkTensor(tensor, name);
    if (!tensor.hasShapeOf(other)) {
      throw new IllegalArgumentException(
          "%s has shape %s, x has %s"
              .formatted(name, Arrays.toString(tensor.shape()), Arrays.toString(other.shape())));
    }
  }

  @Override
  public void close() {
    List<Runnable> releases = new ArrayList<>();
    if (passes != null) {
      releases.add(passes::close);
    }
    variables.forEach(variable -> releases.add(variable::close));
    long address = workspace;
    workspace = 0;
    releases.add(() -> replica.device().free(address));
    Cleanup.runAll(releases);
  }
}
