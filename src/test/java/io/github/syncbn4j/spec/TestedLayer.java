package io.github.syncbn4j.spec;

import io.github.syncbn4j.Adjustment;
import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.OnThreads;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;

/** A layer on a group of its own, which takes the steps that {@link PlainLayer} takes. */
final class TestedLayer implements AutoCloseable {
  final ReplicaGroup group;
  final SyncBatchNormalization layer;
  private final Placement.Style style;

  /** Of the step under way. */
  private Tensors tensors;

  /** Row-major tensors. */
  TestedLayer(
      ReplicaGroup group,
      DType dtype,
      Options options,
      UnaryOperator<SyncBatchNormalization.Builder> more,
      long... shape) {
    this(group, dtype, options, more, Placement::rowMajor, shape);
  }

  /**
   * Takes over the group.
   *
   * @param more further options
   * @param shape of the inputs, -1 for what may vary
   */
  TestedLayer(
      ReplicaGroup group,
      DType dtype,
      Options options,
      UnaryOperator<SyncBatchNormalization.Builder> more,
      Placement.Style style,
      long... shape) {
    this.group = group;
    this.style = style;
    try {
      SyncBatchNormalization.Builder builder = options.builder(group, dtype);
      if (options.adjusted) {
        builder.adjustment(this::factorsOfTheStep);
      }
      this.layer = more.apply(builder).build(shape);
    } catch (RuntimeException e) {
      group.close();
      throw e;
    }
  }

  /** The same values for a variable on all replicas. */
  void set(String variable, double... values) {
    group.replicas().forEach(replica -> set(replica, variable, values));
  }

  void set(Replica replica, String variable, double... values) {
    layer.variables(replica).get(variable).copyFromHost(values);
  }

  double[] get(int rank, String variable) {
    return layer.variables(group.replica(rank)).get(variable).copyToHostAsDoubles();
  }

  private Adjustment.Factors factorsOfTheStep(Replica replica, long[] shape) {
    return new Adjustment.Factors(
        at(tensors.adjustScale, replica.rank()), at(tensors.adjustBias, replica.rank()));
  }

  /** One thread for all replicas. */
  Map<String, double[]> step(Step step) {
    tensors = new Tensors(step);
    try (ForwardPass pass =
        layer.forward(
            tensors.of(tensors.x),
            tensors.of(tensors.y),
            tensors.of(tensors.residual),
            tensors.of(tensors.mask),
            step.training)) {
      if (step.recompute) {
        tensors.forgetOutputs();
        layer.recompute(
            pass, tensors.of(tensors.x), tensors.of(tensors.y), tensors.of(tensors.residual));
      }
      if (step.dy != null) {
        layer.backward(
            pass, tensors.of(tensors.dy), tensors.of(tensors.dx), tensors.of(tensors.dresidual));
      }
    }
    return tensors.results();
  }

  /** A thread a replica. */
  Map<String, double[]> stepByThreads(Step step) throws Exception {
    tensors = new Tensors(step);
    OnThreads.run(group, replica -> runOnOneReplica(replica, step));
    return tensors.results();
  }

  private void runOnOneReplica(Replica replica, Step step) {
    int rank = replica.rank();
    DeviceTensor x = at(tensors.x, rank);
    DeviceTensor y = at(tensors.y, rank);
    DeviceTensor residual = at(tensors.residual, rank);
    try (ForwardPass pass =
        layer.forward(replica, x, y, residual, at(tensors.mask, rank), step.training)) {
      if (step.recompute) {
        tensors.forgetOutput(rank);
        layer.recompute(pass, x, y, residual);
      }
      if (step.dy != null) {
        layer.backward(
            pass, at(tensors.dy, rank), at(tensors.dx, rank), at(tensors.dresidual, rank));
      }
    }
    replica.synchronize();
  }

  private static DeviceTensor at(List<Placement> placements, int rank) {
    return placements == null || placements.get(rank) == null ? null : placements.get(rank).tensor;
  }

  /** What a step reads and writes. */
  private final class Tensors {
    final List<Placement> x;
    final List<Placement> y;
    final List<Placement> residual;
    final List<Placement> mask;
    final List<Placement> adjustScale;
    final List<Placement> adjustBias;
    final List<Placement> dy;
    final List<Placement> dx;
    final List<Placement> dresidual;

    Tensors(Step step) {
      x = placed(step.x, layer.dtype());
      residual = placed(step.residual, layer.dtype());
      mask = placed(step.mask, DType.BOOL);
      adjustScale = placed(step.adjustScale, layer.dtype().ofParameters());
      adjustBias = placed(step.adjustBias, layer.dtype().ofParameters());
      dy = placed(step.dy, layer.dtype());
      boolean overwritesX = step.inPlace && step.residual == null && step.dy == null;
      boolean overwritesResidual = step.inPlace && step.residual != null;
      y = overwritesX ? x : overwritesResidual ? residual : placed(step.x, layer.dtype());
      if (step.dy == null) {
        dx = null;
        dresidual = null;
      } else {
        dx = step.inPlace && step.residual == null ? dy : placed(step.x, layer.dtype());
        dresidual = overwritesResidual ? dy : placed(step.residual, layer.dtype());
      }
    }

    private List<Placement> placed(List<Values> values, DType dtype) {
      if (values == null) {
        return null;
      }
      List<Placement> placements = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        Values own = values.get(replica.rank());
        placements.add(
            own == null ? null : style.place(replica, dtype, own.shape()).write(own.data()));
      }
      return placements;
    }

    List<DeviceTensor> of(List<Placement> placements) {
      if (placements == null) {
        return null;
      }
      List<DeviceTensor> tensors = new ArrayList<>();
      for (int rank = 0; rank < group.size(); rank++) {
        tensors.add(at(placements, rank));
      }
      return tensors;
    }

    void forgetOutputs() {
      group.replicas().forEach(replica -> forgetOutput(replica.rank()));
    }

    void forgetOutput(int rank) {
      double[] nothing = new double[(int) y.get(rank).tensor.elements()];
      Arrays.fill(nothing, Double.NaN);
      y.get(rank).write(nothing);
    }

    Map<String, double[]> results() {
      Map<String, double[]> results = new LinkedHashMap<>();
      for (int rank = 0; rank < group.size(); rank++) {
        results.put("y of rank " + rank, y.get(rank).read());
      }
      for (int rank = 0; rank < group.size() && dx != null; rank++) {
        results.put("dx of rank " + rank, dx.get(rank).read());
        if (dresidual != null) {
          results.put("dresidual of rank " + rank, dresidual.get(rank).read());
        }
      }
      for (Replica replica : group.replicas()) {
        Map<String, DeviceTensor> variables = layer.variables(replica);
        if (variables.containsKey("gamma")) {
          results.put(
              "gamma gradient of rank " + replica.rank(),
              layer.gammaGradient(replica).copyToHostAsDoubles());
        }
        if (variables.containsKey("beta")) {
          results.put(
              "beta gradient of rank " + replica.rank(),
              layer.betaGradient(replica).copyToHostAsDoubles());
        }
        variables.forEach(
            (name, variable) ->
                results.put(name + " of rank " + replica.rank(), variable.copyToHostAsDoubles()));
      }
      return results;
    }
  }

  @Override
  public void close() {
    group.close();
  }
}
