package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.stream.IntStream;

/**
 * The layer of this library, its replicas with a share of the images each. Where the replicas share
 * a memory one thread hands over the tensors of all; otherwise each part's thread its own.
 */
final class Layer implements Contender {
  static final String NAME = "syncbn4j";

  /** Of what is computed in float32 from the tensors' values. */
  private static final double FLOAT32 = 4e-6;

  private final Operands operands;
  private final Problem problem;
  private final ReplicaGroup group;
  private final SyncBatchNormalization plain;
  private final SyncBatchNormalization rectified;
  private final List<List<ForwardPass>> open = new ArrayList<>(); // of each part, of each set
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
    latest = pass.addsAndRectifies() ? rectified : plain;
    latest.setWeights(
        List.of(
            doubles(operands.gamma),
            doubles(operands.beta),
            doubles(operands.movingMean),
            doubles(operands.movingVariance)));
    Calls calls = new Calls(pass.addsAndRectifies());
    if (pass.isBackward()) {
      IntStream.range(0, operands.place.parts()).forEach(part -> open.add(new ArrayList<>()));
      operands.place.each(
          part -> {
            for (int set = 0; set < operands.sets; set++) {
              open.get(part).add(calls.forward(part, set, true));
            }
          });
      return List.of(new Way(calls::backward));
    }
    return List.of(new Way((part, set) -> calls.forward(part, set, !pass.isInference()).close()));
  }

  /** What the thread of a part calls with its share of a set. */
  private final class Calls {
    private final boolean ofAll = operands.place.parts() == 1;
    private final List<List<DeviceTensor>> x = tensors(operands::x);
    private final List<List<DeviceTensor>> dy = tensors(operands::dy);
    private final List<List<DeviceTensor>> out = tensors(operands::out);
    private final List<List<DeviceTensor>> residual;
    private final List<List<DeviceTensor>> dresidual;

    Calls(boolean adds) {
      residual = adds ? tensors(operands::residual) : null;
      dresidual = adds ? tensors(operands::dresidual) : null;
    }

    ForwardPass forward(int part, int set, boolean training) {
      return ofAll
          ? latest.forward(x.get(set), out.get(set), at(residual, set), null, training)
          : latest.forward(
              group.replica(part),
              x.get(set).get(part),
              out.get(set).get(part),
              at(at(residual, set), part),
              null,
              training);
    }

    void backward(int part, int set) {
      ForwardPass pass = open.get(part).get(set);
      if (ofAll) {
        latest.backward(pass, dy.get(set), out.get(set), at(dresidual, set));
      } else {
        latest.backward(
            pass, dy.get(set).get(part), out.get(set).get(part), at(at(dresidual, set), part));
      }
    }
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

  private static <T> T at(List<T> list, int i) {
    return list == null ? null : list.get(i);
  }

  private static double[] doubles(float[] values) {
    return IntStream.range(0, values.length).mapToDouble(i -> values[i]).toArray();
  }

  /** Of each set, of each replica. */
  private List<List<DeviceTensor>> tensors(Operands.Addresses addresses) {
    int parts = operands.place.parts();
    List<List<DeviceTensor>> sets = new ArrayList<>();
    for (int set = 0; set < operands.sets; set++) {
      List<DeviceTensor> ofReplicas = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        int first = problem.firstImage(replica.rank(), group.size());
        int end = problem.firstImage(replica.rank() + 1, group.size());
        int part = replica.rank() * parts / group.size();
        long before = (first - operands.firstImage(part)) * operands.imageBytes();
        long at = addresses.of(part, set) + before;
        ofReplicas.add(replica.wrap(at, problem.dtype(), problem.shape(end - first)));
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
    open.forEach(passes -> passes.forEach(ForwardPass::close));
    open.clear();
  }

  @Override
  public void close() {
    closePasses();
    plain.close();
    rectified.close();
  }
}
