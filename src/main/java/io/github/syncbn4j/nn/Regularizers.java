package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * Keras' regularizers, with TF 2.4's names, parameters and defaults (specification, section 8), and
 * the orthogonal one of TF 2.8.
 *
 * <p>Factors are rounded to float32, as Keras does whatever the weights' type: 0.01 is
 * 0.009999999776482582. They may be negative, but must be finite in float32.
 */
public final class Regularizers {
  private static final double DEFAULT = 0.01;

  private static final Catalog<Regularizer> CATALOG =
      new Catalog<>("regularizer", Regularizer.class)
          .add(p -> L1L2.l1(singleFactor(p, "l1")), "l1", "L1")
          .add(p -> L1L2.l2(singleFactor(p, "l2")), "l2", "L2")
          .add(p -> both(p, DEFAULT), "l1_l2")
          .add(p -> both(p, 0), "L1L2")
          .add(
              p ->
                  orthogonal(
                      p.number("factor", OrthogonalRegularizer.FACTOR),
                      p.text("mode", OrthogonalRegularizer.ROWS)),
              "orthogonal_regularizer",
              "OrthogonalRegularizer");

  private Regularizers() {}

  /**
   * Keras' {@code regularizers.get}.
   *
   * @param identifier a name as in {@code "l2"}; a configuration as {@link #serialize} gives it; a
   *     {@link Regularizer}, which comes back; or null, which comes back. The name {@code "l1_l2"}
   *     has the factors 0.01, the name {@code "L1L2"} has 0.
   * @throws IllegalArgumentException for an unknown name or key, a parameter of the wrong type or
   *     out of range, or another kind of identifier
   */
  public static Regularizer get(Object identifier) {
    return CATALOG.get(identifier);
  }

  /**
   * Keras' {@code regularizers.serialize}: {@code {"class_name": ..., "config": {...}}} with
   * Strings and Doubles; null for null.
   *
   * @throws IllegalArgumentException for an implementation that is not of this class, with its name
   */
  public static Map<String, Object> serialize(Regularizer regularizer) {
    return CATALOG.serialize(regularizer);
  }

  /** {@code factor * sum|w|}; Keras' default is 0.01. */
  public static Regularizer l1(double factor) {
    return L1L2.l1(factor);
  }

  /** {@code factor * sum w^2}, without a half; Keras' default is 0.01. */
  public static Regularizer l2(double factor) {
    return L1L2.l2(factor);
  }

  /** {@code l1 * sum|w| + l2 * sum w^2}. */
  public static Regularizer l1L2(double l1, double l2) {
    return L1L2.both(l1, l2);
  }

  /**
   * {@code factor} times the mean of |cosine| over all pairs of rows or columns of a matrix; 0
   * where there is no pair. It refuses parameters whose rank is not 2.
   *
   * @param factor Keras' default is 0.01
   * @param mode {@code "rows"}, Keras' default, or {@code "columns"}
   */
  public static Regularizer orthogonal(double factor, String mode) {
    return new OrthogonalRegularizer(factor, mode);
  }

  /**
   * A factor as Keras keeps it.
   *
   * @throws IllegalArgumentException if it is not finite in float32
   */
  static double factor(String name, double factor) {
    float rounded = (float) factor;
    if (!Float.isFinite(rounded)) {
      throw new IllegalArgumentException(
          "%s: %s is not a valid regularization penalty number, it must be finite in float32"
              .formatted(name, factor));
    }
    return rounded;
  }

  /** {@code l} is an older name of both {@code l1} and {@code l2}, and wins. */
  private static double singleFactor(Parameters parameters, String name) {
    return parameters.optionalNumber("l", parameters.optionalNumber(name, DEFAULT));
  }

  private static Regularizer both(Parameters parameters, double absent) {
    return L1L2.both(
        parameters.optionalNumber("l1", absent), parameters.optionalNumber("l2", absent));
  }
}
