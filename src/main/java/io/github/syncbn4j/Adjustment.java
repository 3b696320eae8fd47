package io.github.syncbn4j;

/**
 * Scales and shifts the normalized values of a training step, before gamma and beta: {@code (xhat *
 * scale + bias) * gamma + beta}. A random one is a regularizer, which may differ by replica and by
 * example.
 *
 * <p>Source: the {@code adjustment} argument of Keras' base class; its {@code
 * SyncBatchNormalization} of TensorFlow 2.4 takes the argument and ignores it.
 */
@FunctionalInterface
public interface Adjustment {
  /**
   * Called once a training forward and replica, before anything is enqueued, by the thread that
   * calls forward; never in inference. It may allocate, and has no place in a captured graph. What
   * it throws ends the call before anything is enqueued; where each replica has a thread, the
   * others then wait until the group's timeout.
   *
   * @param replica whose share of the batch it is; the tensors must be on its device
   * @param shape of x
   */
  Factors of(Replica replica, long[] shape);

  /**
   * Constants to the gradient, of the dtype of the layer's parameters. Their shapes broadcast
   * against x, as in NumPy: for channels in dimension 1 of 4, {@code [1, C, 1, 1]}. They must stay
   * as they are until the forward has run.
   */
  record Factors(DeviceTensor scale, DeviceTensor bias) {}
}
