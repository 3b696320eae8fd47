package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.natives.CudaKernels;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;

/**
 * Both halves of a direction on a GPU whose replica is alone: in one launch where the device's chip
 * holds the tensors, else in two. The bits are the same.
 *
 * <p>With the system property {@value #PROPERTY} set to {@code false} when it is made, it is not
 * wanted and two launches are taken always: for comparing the two.
 */
final class OneLaunch {
  static final String PROPERTY = "syncbn.one_launch";

  private final CudaDevice device;
  private final boolean wanted = !"false".equals(System.getProperty(PROPERTY));
  private final long[] bytes = new long[1];

  OneLaunch(CudaDevice device) {
    this.device = device;
  }

  boolean isWanted() {
    return wanted;
  }

  /** Enqueues statistics and outputs. */
  void forward(syncbn_stats_args stats, syncbn_normalize_args normalize) {
    long stream = device.stream();
    int previous = device.enter();
    int status = CudaKernels.syncbn_cuda_forward(stats.stream(stream), normalize.stream(stream));
    device.leave(previous);
    device.checkKernel(status, "syncbn_cuda_forward");
  }

  /** Enqueues sums, parameter gradients and input gradients. */
  void backward(syncbn_backward_reduce_args reduce, syncbn_backward_input_args input) {
    long stream = device.stream();
    int previous = device.enter();
    int status = CudaKernels.syncbn_cuda_backward(reduce.stream(stream), input.stream(stream));
    device.leave(previous);
    device.checkKernel(status, "syncbn_cuda_backward");
  }

  /** Bytes of x that {@link #forward} keeps on the chip in one launch; 0: it takes two. */
  long bytesOnChip(syncbn_stats_args stats, syncbn_normalize_args normalize) {
    long stream = device.stream();
    int previous = device.enter();
    int status =
        CudaKernels.syncbn_cuda_forward_on_chip(
            stats.stream(stream), normalize.stream(stream), bytes);
    device.leave(previous);
    device.checkKernel(status, "syncbn_cuda_forward_on_chip");
    return bytes[0];
  }

  /** Bytes of x and dy that {@link #backward} keeps; 0: it takes two launches. */
  long bytesOnChip(syncbn_backward_reduce_args reduce, syncbn_backward_input_args input) {
    long stream = device.stream();
    int previous = device.enter();
    int status =
        CudaKernels.syncbn_cuda_backward_on_chip(
            reduce.stream(stream), input.stream(stream), bytes);
    device.leave(previous);
    device.checkKernel(status, "syncbn_cuda_backward_on_chip");
    return bytes[0];
  }
}
