package io.github.syncbn4j.nn;

/**
 * A penalty on a parameter, to be added to the training loss.
 *
 * <p>A layer takes any implementation, but only those of {@link Regularizers} have a configuration.
 */
public interface Regularizer {
  /**
   * The penalty.
   *
   * @param weights row-major, as many as {@code shape} has elements; not changed
   * @throws IllegalArgumentException for a shape that this regularizer cannot serve
   */
  double loss(double[] weights, long... shape);

  /**
   * The derivative of {@link #loss} by each weight, a new array; 0 where the penalty has a kink.
   *
   * @param weights row-major, as many as {@code shape} has elements; not changed
   * @throws IllegalArgumentException for a shape that this regularizer cannot serve
   */
  double[] gradient(double[] weights, long... shape);
}
