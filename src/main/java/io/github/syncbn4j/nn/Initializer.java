package io.github.syncbn4j.nn;

/**
 * Gives a parameter its first values.
 *
 * <pre>{@code
 * Initializer half = (values, shape) -> Arrays.fill(values, 0.5);
 * }</pre>
 *
 * <p>A layer takes any implementation, but only those of {@link Initializers} have a configuration.
 */
@FunctionalInterface
public interface Initializer {
  /**
   * Overwrites every element of {@code values}.
   *
   * @param values row-major, as many as {@code shape} has elements
   * @param shape of the parameter: {@code [C]} for one axis, else the input's rank with 1 in each
   *     reduced dimension
   * @throws IllegalArgumentException for a shape that this initializer cannot serve
   */
  void fill(double[] values, long... shape);

  /**
   * New values for a parameter of this shape, row-major.
   *
   * @throws IllegalArgumentException for a shape that this initializer cannot serve, that has a
   *     negative dimension or more elements than an array
   */
  default double[] values(long... shape) {
    double[] values = new double[ParameterShape.elements(shape)];
    fill(values, shape);
    return values;
  }
}
