package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.function.IntConsumer;
import java.util.function.IntToLongFunction;
import java.util.stream.IntStream;

/** The layer of this library, its replicas with a part of the images each. */
final class Layer implements Contender {
  static final String NAME = "syncbn4j";

  /** Of what is computed in float32 from the tensors' values. */
  private static final double FLOAT32 = 4e-6;

  private final Operands operands;
  private final Problem problem;
  private final ReplicaGroup group;
  private final SyncBatchNormalization plain;
  private final SyncBatchNormalization rectified;
  private final List<ForwardPass> open = new ArrayList<>();
  private SyncBatchNormalization latest; // of the two, that of the pass

  Layer(Operands operands) {
    this.operands = operands;
    this.problem = operands.problem;
    group = operands.place.group();
    plain = layer(false);
    rectified = layer(true);
  }

  private SyncBatchNormalization layer(boolean relu) {
    return SyncBatchNormalization.builder(group)
        .dtype(problem.dtype())
        .axis(problem.axis())
        .epsilon(Reference.EPSILON)
        .relu(relu)
        .build(problem.shape());
  }

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public List<Way> ways(Pass pass) {
    closePasses();
    SyncBatchNormalization layer = pass.addsAndRectifies() ? rectified : plain;
    latest = layer;
    layer.setWeights(
        List.of(
            doubles(operands.gamma),
            doubles(operands.beta),
            doubles(operands.movingMean),
            doubles(operands.movingVariance)));
    List<List<DeviceTensor>> x = tensors(operands::x);
    List<List<DeviceTensor>> dy = tensors(operands::dy);
    List<List<DeviceTensor>> out = tensors(operands::out);
    boolean adds = pass.addsAndRectifies();
    List<List<DeviceTensor>> residual = adds ? tensors(operands::residual) : null;
    List<List<DeviceTensor>> dresidual = adds ? tensors(operands::dresidual) : null;
    if (pass.isBackward()) {
      for (int set = 0; set < operands.sets; set++) {
        open.add(
            adds
                ? layer.forward(x.get(set), out.get(set), residual.get(set), null, true)
                : layer.forward(x.get(set), out.get(set), true));
      }
    }
    IntConsumer call =
        switch (pass) {
          case FORWARD -> set -> layer.forward(x.get(set), out.get(set), true).close();
          case FORWARD_ADD_RELU ->
              set -> layer.forward(x.get(set), out.get(set), residual.get(set), null, true).close();
          case INFERENCE -> set -> layer.infer(x.get(set), out.get(set));
          case INFERENCE_ADD_RELU ->
              set -> layer.infer(x.get(set), out.get(set), residual.get(set));
          case BACKWARD -> set -> layer.backward(open.get(set), dy.get(set), out.get(set));
          case BACKWARD_ADD_RELU ->
              set -> layer.backward(open.get(set), dy.get(set), out.get(set), dresidual.get(set));
        };
    return List.of(new Way(call));
  }

  @Override
  public List<double[]> parameterGradients() {
    return List.of(summed(latest::gammaGradient), summed(latest::betaGradient));
  }

  /** Each replica has those of its own images. */
  private double[] summed(Function<Replica, DeviceTensor> gradient) {
    double[] sums = new double[problem.channels()];
    for (Replica replica : group.replicas()) {
      double[] own = gradient.apply(replica).copyToHostAsDoubles();
      for (int c = 0; c < sums.length; c++) {
        sums[c] += own[c];
      }
    }
    return sums;
  }

  private static double[] doubles(float[] values) {
    return IntStream.range(0, values.length).mapToDouble(i -> values[i]).toArray();
  }

  /** Of each set, of each replica. */
  private List<List<DeviceTensor>> tensors(IntToLongFunction address) {
    long imageBytes = problem.bytes() / problem.images();
    List<List<DeviceTensor>> sets = new ArrayList<>();
    for (int set = 0; set < operands.sets; set++) {
      List<DeviceTensor> ofReplicas = new ArrayList<>();
      long first = 0;
      for (Replica replica : group.replicas()) {
        long end = (long) problem.images() * (replica.rank() + 1) / group.size();
        long at = address.applyAsLong(set) + first * imageBytes;
        ofReplicas.add(replica.wrap(at, problem.dtype(), problem.shape(end - first)));
        first = end;
      }
      sets.add(ofReplicas);
    }
    return sets;
  }

  @Override
  public double allowedError() {
    return FLOAT32 + operands.rounding();
  }

  private void closePasses() {
    open.forEach(ForwardPass::close);
    open.clear();
  }

  @Override
  public void close() {
    closePasses();
    plain.close();
    rectified.close();
  }
}
