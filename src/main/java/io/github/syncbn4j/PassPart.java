package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.util.List;

/**
 * One replica's part of a pass: its buffers and the argument structs of the four kernels. What does
 * not change between steps is set once, so that a step only fills in addresses, the number of
 * elements and the signature.
 */
final class PassPart {
  private final LayerReplica member;
  private final Device device;
  private final Rows rows;
  private final long rowsAddress;
  private final long savedAddress;
  private final syncbn_stats_args stats = new syncbn_stats_args();
  private final syncbn_normalize_args normalize = new syncbn_normalize_args();
  private final syncbn_backward_reduce_args reduce = new syncbn_backward_reduce_args();
  private final syncbn_backward_input_args input = new syncbn_backward_input_args();
  private DeviceTensor x;
  private boolean training;
  private long step;

  PassPart(LayerReplica member) {
    this.member = member;
    this.device = member.replica().device();
    int world = member.replica().group().size();
    int rank = member.replica().rank();
    long channels = member.config().channels();
    rowsAddress = device.allocate(world * forwardRow() * Double.BYTES);
    try {
      savedAddress = device.allocate((1 + 2 * channels) * Double.BYTES);
    } catch (RuntimeException e) {
      device.free(rowsAddress);
      throw e;
    }
    rows = new Rows(rank, world, rowsAddress);
    int dtype = DType.FLOAT32.code();
    long control = device.control().address();
    stats
        .struct_size(stats.sizeof())
        .dtype(dtype)
        .channels(channels)
        .inner(1)
        .world_size(world)
        .rank(rank)
        .rows(rowsAddress)
        .workspace(member.workspace())
        .stream(device.stream());
    normalize
        .struct_size(normalize.sizeof())
        .dtype(dtype)
        .channels(channels)
        .inner(1)
        .world_size(world)
        .epsilon(member.config().epsilon())
        .decay(1 - member.config().momentum())
        .gamma(address(member.gamma()))
        .beta(address(member.beta()))
        .rows(rowsAddress)
        .moving_mean(member.movingMean().address())
        .moving_variance(member.movingVariance().address())
        .saved(savedAddress)
        .control(control)
        .workspace(member.workspace())
        .stream(device.stream());
    reduce
        .struct_size(reduce.sizeof())
        .dtype(dtype)
        .channels(channels)
        .inner(1)
        .world_size(world)
        .rank(rank)
        .saved(savedAddress)
        .gamma_grad(address(member.gammaGradient()))
        .beta_grad(address(member.betaGradient()))
        .workspace(member.workspace())
        .stream(device.stream());
    input
        .struct_size(input.sizeof())
        .dtype(dtype)
        .channels(channels)
        .inner(1)
        .world_size(world)
        .gamma(address(member.gamma()))
        .saved(savedAddress)
        .rows(rowsAddress)
        .control(control)
        .stream(device.stream());
  }

  private long forwardRow() {
    return 2 + 2 * member.config().channels();
  }

  private long backwardRow() {
    return 1 + 2 * member.config().channels();
  }

  private static long address(DeviceTensor variable) {
    return variable == null ? 0 : variable.address();
  }

  Rows rows() {
    return rows;
  }

  boolean training() {
    return training;
  }

  void prepareForward(DeviceTensor x, DeviceTensor y, boolean training) {
    this.x = x;
    this.training = training;
    long outer = x.elements() / member.config().channels();
    if (training) {
      step = member.nextStep();
      double signature = member.signature(step, false);
      rows.length(forwardRow());
      stats.outer(outer).signature(signature).x(x.address());
      normalize.signature(signature);
    }
    normalize.training(training ? 1 : 0).outer(outer).x(x.address()).y(y.address());
  }

  void stats() {
    device.stats(stats);
  }

  void normalize() {
    device.normalize(normalize);
  }

  void checkGradients(DeviceTensor dy, DeviceTensor dx) {
    x.address();
    member.checkSame(dy, "dy", x);
    member.checkSame(dx, "dx", x);
  }

  void prepareBackward(DeviceTensor dy, DeviceTensor dx) {
    long outer = x.elements() / member.config().channels();
    double signature = member.signature(step, true);
    rows.length(backwardRow());
    reduce
        .outer(outer)
        .signature(signature)
        .x(x.address())
        .dy(dy.address())
        .rows(training ? rowsAddress : 0);
    input
        .training(training ? 1 : 0)
        .outer(outer)
        .signature(signature)
        .x(x.address())
        .dy(dy.address())
        .dx(dx.address());
  }

  void backwardReduce() {
    device.backwardReduce(reduce);
  }

  void backwardInput() {
    device.backwardInput(input);
  }

  void release() {
    Cleanup.runAll(List.of(() -> device.free(savedAddress), () -> device.free(rowsAddress)));
  }
}
