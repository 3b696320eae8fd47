package io.github.syncbn4j.nn;

/**
 * Where a parameter may be: applied after each optimizer update, and only then.
 *
 * <p>A layer takes any implementation, but only those of {@link Constraints} have a configuration.
 */
@FunctionalInterface
public interface Constraint {
  /**
   * The weights that take the place of {@code weights}, a new array.
   *
   * @param weights row-major, as many as {@code shape} has elements; not changed
   * @throws IllegalArgumentException for a shape that this constraint cannot serve
   */
  double[] apply(double[] weights, long... shape);
}
