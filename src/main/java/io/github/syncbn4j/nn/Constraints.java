package io.github.syncbn4j.nn;

import java.util.Map;

/**
 * Keras' constraints, with TF 2.4's names, parameters and defaults (specification, section 8).
 *
 * <p>Those with a norm {@code n = sqrt(sum w^2)} sum over {@code axis}, by default dimension 0. Of
 * a parameter of shape {@code [C]} that is the norm of the whole vector. Of one of shape {@code [1,
 * 3, 1, 5]}, it is each weight's own. Negative axes count from the last; an axis that the parameter
 * does not have is refused when the constraint is applied. Other parameters must be finite.
 */
public final class Constraints {
  /** Keras' {@code K.epsilon()}, added to norms that something is divided by. */
  static final double EPSILON = 1e-7;

  private static final Catalog<Constraint> CATALOG =
      new Catalog<>("constraint", Constraint.class)
          .add(
              p -> new MaxNorm(p.number("max_value", MaxNorm.MAX_VALUE), p.axis()),
              "max_norm",
              "maxnorm",
              "MaxNorm")
          .add(p -> nonNeg(), "non_neg", "nonneg", "NonNeg")
          .add(p -> new UnitNorm(p.axis()), "unit_norm", "unitnorm", "UnitNorm")
          .add(
              p ->
                  new MinMaxNorm(
                      p.number("min_value", MinMaxNorm.MIN_VALUE),
                      p.number("max_value", MinMaxNorm.MAX_VALUE),
                      p.number("rate", MinMaxNorm.RATE),
                      p.axis()),
              "min_max_norm",
              "MinMaxNorm")
          .add(p -> radial(), "radial_constraint", "RadialConstraint");

  private Constraints() {}

  /**
   * Keras' {@code constraints.get}.
   *
   * @param identifier a name as in {@code "max_norm"}; a configuration as {@link #serialize} gives
   *     it; a {@link Constraint}, which comes back; or null, which comes back
   * @throws IllegalArgumentException for an unknown name or key, a parameter of the wrong type or
   *     out of range, or another kind of identifier
   */
  public static Constraint get(Object identifier) {
    return CATALOG.get(identifier);
  }

  /**
   * Keras' {@code constraints.serialize}: {@code {"class_name": ..., "config": {...}}} with
   * Strings, Longs, Doubles, Lists and nulls; null for null.
   *
   * @throws IllegalArgumentException for an implementation that is not of this class, with its name
   */
  public static Map<String, Object> serialize(Constraint constraint) {
    return CATALOG.serialize(constraint);
  }

  /** {@code w * (clip(n, 0, maxValue) / (1e-7 + n))} over dimension 0; Keras' default is 2. */
  public static Constraint maxNorm(double maxValue) {
    return new MaxNorm(maxValue, Axes.FIRST);
  }

  /** {@code w * (clip(n, 0, maxValue) / (1e-7 + n))} over these axes. */
  public static Constraint maxNorm(double maxValue, int... axis) {
    return new MaxNorm(maxValue, Axes.of(axis));
  }

  /** {@code w * (w >= 0)}: a negative weight becomes -0.0. */
  public static Constraint nonNeg() {
    return new NonNeg();
  }

  /** {@code w / (1e-7 + n)} over dimension 0. */
  public static Constraint unitNorm() {
    return new UnitNorm(Axes.FIRST);
  }

  /** {@code w / (1e-7 + n)} over these axes. */
  public static Constraint unitNorm(int... axis) {
    return new UnitNorm(Axes.of(axis));
  }

  /**
   * {@code w * ((rate * clip(n, minValue, maxValue) + (1 - rate) * n) / (1e-7 + n))} over dimension
   * 0; Keras' defaults are 0, 1 and 1.
   */
  public static Constraint minMaxNorm(double minValue, double maxValue, double rate) {
    return new MinMaxNorm(minValue, maxValue, rate, Axes.FIRST);
  }

  /** As {@link #minMaxNorm(double, double, double)}, over these axes. */
  public static Constraint minMaxNorm(double minValue, double maxValue, double rate, int... axis) {
    return new MinMaxNorm(minValue, maxValue, rate, Axes.of(axis));
  }

  /**
   * Weights of square convolution kernels that depend on the distance to the centre alone, as TF
   * 2.4 computes them. It refuses parameters whose rank is not 4, and kernels that are not square
   * or have one row.
   */
  public static Constraint radial() {
    return new RadialConstraint();
  }

  /** Keras' {@code K.clip}: a range whose end is before its begin is taken as its begin. */
  static double clip(double value, double min, double max) {
    return Math.max(Math.min(value, Math.max(min, max)), min);
  }
}
