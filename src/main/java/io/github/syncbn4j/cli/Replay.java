package io.github.syncbn4j.cli;

import io.github.syncbn4j.Adjustment;
import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.state.StoredTensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * Runs a recording's steps on a layer and collects what it produces, by the names of the replay
 * format. One thread hands over the tensors of all replicas.
 */
final class Replay {
  /** Replicas whose moving statistics are not the same bits after a step. */
  static final class DivergedException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    DivergedException(String message) {
      super(message);
    }
  }

  private final Recording recording;
  private final ReplicaGroup group;
  private final SyncBatchNormalization layer;
  private final Consumer<String> heading;
  private final Map<String, StoredTensor> produced = new LinkedHashMap<>();

  private Replay(
      Recording recording,
      ReplicaGroup group,
      SyncBatchNormalization layer,
      Consumer<String> heading) {
    this.recording = recording;
    this.group = group;
    this.layer = layer;
    this.heading = heading;
  }

  /**
   * Runs all steps.
   *
   * @param group as many replicas as recorded
   * @param heading is told, before each step and direction, what comes
   * @throws IllegalArgumentException for a value of the recording that the layer does not accept
   * @throws DivergedException if replicas end a step with different moving statistics
   */
  static Map<String, StoredTensor> run(
      Recording recording, ReplicaGroup group, Consumer<String> heading) {
    ReplayCase recorded = recording.recorded();
    try (SyncBatchNormalization layer = layer(recording, group)) {
      if (layer.dtype() != recorded.dtype()) {
        throw new IllegalArgumentException(
            "config.dtype is %s, but dtype is %s".formatted(layer.dtype(), recorded.dtype()));
      }
      Replay replay = new Replay(recording, group, layer, heading);
      replay.setVariables();
      for (int step = 0; step < recorded.training().size(); step++) {
        replay.step(step, recorded.training().get(step));
      }
      return replay.produced;
    }
  }

  private static SyncBatchNormalization layer(Recording recording, ReplicaGroup group) {
    ReplayCase recorded = recording.recorded();
    SyncBatchNormalization.Builder builder =
        SyncBatchNormalization.builder(group).dtype(recorded.dtype()).config(recorded.config());
    recorded
        .adjustment()
        .ifPresent(
            factors ->
                builder.adjustment(
                    (replica, shape) ->
                        new Adjustment.Factors(
                            tensor(replica, recorded.dtype().ofParameters(), factors.scale()),
                            tensor(replica, recorded.dtype().ofParameters(), factors.bias()))));
    return builder.build(recording.x(0, 0).shape());
  }

  /** The group's to close: a step of a recording takes little. */
  private static DeviceTensor tensor(Replica replica, DType dtype, ReplayCase.Array array) {
    DeviceTensor tensor = replica.allocate(dtype, array.shape());
    tensor.copyFromHost(array.values());
    return tensor;
  }

  private void setVariables() {
    for (Replica replica : group.replicas()) {
      layer
          .variables(replica)
          .forEach(
              (name, variable) -> {
                StoredTensor initial = recording.initial(name);
                if (!Arrays.equals(initial.shape(), variable.shape())) {
                  throw new IllegalArgumentException(
                      "initial.%s has shape %s, not %s"
                          .formatted(
                              name,
                              Arrays.toString(initial.shape()),
                              Arrays.toString(variable.shape())));
                }
                variable.copyFromHost(initial.data());
              });
    }
  }

  private void step(int step, boolean training) {
    String kind = training ? "(training)" : "(inference)";
    List<DeviceTensor> opened = new ArrayList<>();
    try {
      List<DeviceTensor> x = new ArrayList<>();
      List<DeviceTensor> y = new ArrayList<>();
      List<DeviceTensor> mask = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        StoredTensor input = recording.x(step, replica.rank());
        x.add(tensor(replica, layer.dtype(), input, opened));
        y.add(nan(replica, input.shape(), opened));
        StoredTensor counted = recording.mask(step, replica.rank());
        mask.add(counted == null ? null : tensor(replica, DType.BOOL, counted, opened));
      }
      heading.accept("step " + step + " forward " + kind);
      try (ForwardPass pass = layer.forward(x, y, null, mask, training)) {
        keepAll(step, "y", y);
        keepState(step);
        if (recording.hasGradients(step)) {
          heading.accept("step " + step + " backward " + kind);
          backward(step, pass, opened);
        }
      }
    } finally {
      opened.forEach(DeviceTensor::close);
    }
  }

  private void backward(int step, ForwardPass pass, List<DeviceTensor> opened) {
    List<DeviceTensor> dy = new ArrayList<>();
    List<DeviceTensor> dx = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      StoredTensor input = recording.dy(step, replica.rank());
      dy.add(tensor(replica, layer.dtype(), input, opened));
      dx.add(nan(replica, input.shape(), opened));
    }
    layer.backward(pass, dy, dx);
    keepAll(step, "dx", dx);
    if (!layer.isTrainable()) {
      return;
    }
    if (recording.recorded().scale()) {
      keepAll(step, "gamma_grad", group.replicas().stream().map(layer::gammaGradient).toList());
    }
    if (recording.recorded().center()) {
      keepAll(step, "beta_grad", group.replicas().stream().map(layer::betaGradient).toList());
    }
  }

  private static DeviceTensor tensor(
      Replica replica, DType dtype, StoredTensor values, List<DeviceTensor> opened) {
    DeviceTensor tensor = replica.allocate(dtype, values.shape());
    opened.add(tensor);
    tensor.copyFromHost(values.data());
    return tensor;
  }

  /** An output to be: an element that no kernel writes stays NaN. */
  private DeviceTensor nan(Replica replica, long[] shape, List<DeviceTensor> opened) {
    DeviceTensor tensor = replica.allocate(layer.dtype(), shape);
    opened.add(tensor);
    double[] values = new double[Math.toIntExact(tensor.elements())];
    Arrays.fill(values, Double.NaN);
    tensor.copyFromHost(values);
    return tensor;
  }

  private void keepAll(int step, String name, List<DeviceTensor> tensors) {
    for (int rank = 0; rank < tensors.size(); rank++) {
      produced.put(Recording.input(step, rank, name), stored(tensors.get(rank)));
    }
  }

  private void keepState(int step) {
    for (String name : recording.recorded().state()) {
      List<StoredTensor> copies =
          group.replicas().stream()
              .map(replica -> stored(layer.variables(replica).get(name)))
              .toList();
      requireSameBits(Recording.state(step, name), copies);
      produced.put(Recording.state(step, name), copies.get(0));
    }
  }

  /**
   * @param copies one a replica, in rank order
   * @throws DivergedException unless all are the same bits
   */
  static void requireSameBits(String name, List<StoredTensor> copies) {
    for (int rank = 1; rank < copies.size(); rank++) {
      if (!copies.get(rank).data().equals(copies.get(0).data())) {
        throw new DivergedException(name + " of ranks 0 and " + rank + " differ");
      }
    }
  }

  private static StoredTensor stored(DeviceTensor tensor) {
    ByteBuffer values =
        ByteBuffer.allocate(Math.toIntExact(tensor.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    tensor.copyToHost(values);
    return new StoredTensor(Dtypes.stored(tensor.dtype()), tensor.shape(), values);
  }
}
