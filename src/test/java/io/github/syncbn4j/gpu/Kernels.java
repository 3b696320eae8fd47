package io.github.syncbn4j.gpu;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.cuda.OneRank;
import io.github.syncbn4j.device.natives.CudaKernels;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_copy_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;

/**
 * The kernels of a training step, each on its own, as one replica without others launches them,
 * with a layer's parameters and rows, statistics and gradients of their own.
 */
final class Kernels implements AutoCloseable {
  private static final double FORWARD_SIGNATURE = 1;
  private static final double BACKWARD_SIGNATURE = 2;
  private static final int SAVED_VALUES = 5;

  private final OneRank rank;
  private final Device device;
  private final Rows forwardExchange;
  private final Rows backwardExchange;
  private final DType parameters;
  private final long channels;
  private final long outer;
  private final long inner;
  private final int elementBytes;
  private final Cuda.Memory rows;
  private final Cuda.Memory backwardRows;
  private final Cuda.Memory saved;
  private final Cuda.Memory workspace;
  private final Cuda.Memory gradients;
  private final syncbn_stats_args stats = new syncbn_stats_args();
  private final syncbn_normalize_args normalize = new syncbn_normalize_args();
  private final syncbn_backward_reduce_args reduce = new syncbn_backward_reduce_args();
  private final syncbn_backward_input_args input = new syncbn_backward_input_args();
  private final syncbn_copy_args copy = new syncbn_copy_args();

  Kernels(OneRank rank, SyncBatchNormalization layer, Replica replica, long outer, long inner) {
    this.rank = rank;
    this.device = rank.device();
    this.channels = layer.channels();
    this.outer = outer;
    this.inner = inner;
    this.parameters = layer.dtype().ofParameters();
    this.elementBytes = layer.dtype().bytes();
    rows = new Cuda.Memory((2 + 2 * channels) * Double.BYTES);
    backwardRows = new Cuda.Memory((1 + 2 * channels) * Double.BYTES);
    saved = new Cuda.Memory(SAVED_VALUES * channels * Double.BYTES);
    workspace = new Cuda.Memory(device.workspaceBytes(channels));
    gradients = new Cuda.Memory(2 * channels * parameters.bytes());
    forwardExchange = new Rows(0, 1, rows.address()).length(2 + 2 * channels);
    backwardExchange = new Rows(0, 1, backwardRows.address()).length(1 + 2 * channels);
    device.zero(workspace.address(), workspace.bytes());
    int dtype = code(layer.dtype());
    long gamma = layer.gamma(replica).address();
    long beta = layer.beta(replica).address();
    stats
        .struct_size(stats.sizeof())
        .dtype(dtype)
        .outer(outer)
        .channels(channels)
        .inner(inner)
        .world_size(1)
        .signature(FORWARD_SIGNATURE)
        .rows(rows.address())
        .workspace(workspace.address());
    normalize
        .struct_size(normalize.sizeof())
        .dtype(dtype)
        .outer(outer)
        .channels(channels)
        .inner(inner)
        .world_size(1)
        .statistics(CudaKernels.SYNCBN_BATCH)
        .signature(FORWARD_SIGNATURE)
        .epsilon(Reference.EPSILON)
        .decay(0.01)
        .gamma(gamma)
        .beta(beta)
        .rows(rows.address())
        .moving_mean(layer.movingMean(replica).address())
        .moving_variance(layer.movingVariance(replica).address())
        .saved(saved.address())
        .control(device.control().address())
        .workspace(workspace.address());
    reduce
        .struct_size(reduce.sizeof())
        .dtype(dtype)
        .outer(outer)
        .channels(channels)
        .inner(inner)
        .world_size(1)
        .signature(BACKWARD_SIGNATURE)
        .saved(saved.address())
        .rows(backwardRows.address())
        .gamma_grad(gammaGradient())
        .beta_grad(betaGradient())
        .workspace(workspace.address())
        .gamma(gamma)
        .beta(beta);
    input
        .struct_size(input.sizeof())
        .dtype(dtype)
        .outer(outer)
        .channels(channels)
        .inner(inner)
        .world_size(1)
        .training(1)
        .signature(BACKWARD_SIGNATURE)
        .gamma(gamma)
        .saved(saved.address())
        .rows(backwardRows.address())
        .control(device.control().address())
        .beta(beta);
  }

  private static int code(DType dtype) {
    return switch (dtype) {
      case FLOAT32 -> CudaKernels.SYNCBN_FLOAT32;
      case FLOAT16 -> CudaKernels.SYNCBN_FLOAT16;
      case BFLOAT16 -> CudaKernels.SYNCBN_BFLOAT16;
      default -> throw new IllegalArgumentException("no kernels are timed for " + dtype);
    };
  }

  void stats(long x) {
    device.stats(stats.x(x));
  }

  void normalize(long x, long y) {
    device.normalize(normalize.x(x).y(y));
  }

  void backwardReduce(long x, long dy) {
    device.backwardReduce(reduce.x(x).dy(dy));
  }

  void backwardInput(long x, long dy, long dx) {
    device.backwardInput(input.x(x).dy(dy).dx(dx));
  }

  /** What a replica that is alone does, in two launches. */
  void separateForward(long x, long y) {
    stats(x);
    normalize(x, y);
  }

  void separateBackward(long x, long dy, long dx) {
    backwardReduce(x, dy);
    backwardInput(x, dy, dx);
  }

  /** Bytes on the chip of what it does in one; 0: it takes two. */
  long forwardOnChip(long x, long y) {
    return rank.forwardOnChip(stats.x(x), normalize.x(x).y(y));
  }

  long backwardOnChip(long x, long dy, long dx) {
    return rank.backwardOnChip(reduce.x(x).dy(dy), input.x(x).dy(dy).dx(dx));
  }

  /** Statistics, their exchange by NCCL, and outputs. */
  void forward(long x, long y) {
    stats(x);
    rank.exchange(forwardExchange);
    normalize(x, y);
  }

  /** Sums, their exchange by NCCL, and input gradients. */
  void backward(long x, long dy, long dx) {
    backwardReduce(x, dy);
    rank.exchange(backwardExchange);
    backwardInput(x, dy, dx);
  }

  /** The elements of a channel, one behind the other. */
  void gather(long tensor, int channel, long to) {
    copy.struct_size(copy.sizeof())
        .element_size(elementBytes)
        .rank(2)
        .shape(0, outer)
        .shape(1, inner)
        .source_strides(0, channels * inner)
        .source_strides(1, 1)
        .destination_strides(0, inner)
        .destination_strides(1, 1)
        .source(tensor + channel * inner * elementBytes)
        .destination(to);
    device.copy(copy);
  }

  /** Of float64 [2][channels]: mean and sum of squared deviations, of the last statistics. */
  long statistics() {
    return rows.address() + 2 * Double.BYTES;
  }

  long gammaGradient() {
    return gradients.address();
  }

  long betaGradient() {
    return gradients.address() + channels * parameters.bytes();
  }

  /** Before all of them: what they should have written, and have not, then shows. */
  void poison(Cuda.Stream stream) {
    stream.fill(rows.address(), 0xff, rows.bytes());
    stream.fill(gradients.address(), 0xff, gradients.bytes());
  }

  @Override
  public void close() {
    for (Cuda.Memory memory : new Cuda.Memory[] {rows, backwardRows, saved, workspace, gradients}) {
      memory.close();
    }
  }
}
