package io.github.syncbn4j.nn;

import java.util.Map;
import java.util.function.Function;

/**
 * Keras' initializers, with TF 2.4's names, parameters and defaults (specification, section 8).
 *
 * <p>An initializer with a seed gives the same values for the same shape each time; one without
 * gives others each time. The values for a seed are those of this library, not Keras', and may
 * change with the Java release. Parameters must be finite.
 */
public final class Initializers {
  private static final Catalog<Initializer> CATALOG = catalog();

  private Initializers() {}

  // ------------------------------------------------------------------------------------------------ identifiers

  /**
   * Keras' {@code initializers.get}.
   *
   * @param identifier a name as in {@code "zeros"}, {@code "Zeros"} or {@code "ZerosV2"}; a
   *     configuration as {@link #serialize} gives it; an {@link Initializer}, which comes back; or
   *     null, which comes back
   * @throws IllegalArgumentException for an unknown name or key, a parameter of the wrong type or
   *     out of range, or another kind of identifier
   */
  public static Initializer get(Object identifier) {
    return CATALOG.get(identifier);
  }

  /**
   * Keras' {@code initializers.serialize}: {@code {"class_name": ..., "config": {...}}} with
   * Strings, Longs, Doubles and nulls; null for null.
   *
   * @throws IllegalArgumentException for an implementation that is not of this class, with its name
   */
  public static Map<String, Object> serialize(Initializer initializer) {
    return CATALOG.serialize(initializer);
  }

  // ------------------------------------------------------------------------------------------------ constants

  public static Initializer zeros() {
    return Constant.ZEROS;
  }

  public static Initializer ones() {
    return Constant.ONES;
  }

  public static Initializer constant(double value) {
    return Constant.of(value);
  }

  // ------------------------------------------------------------------------------------------------ random

  /** Uniform in [-0.05, 0.05). */
  public static Initializer randomUniform() {
    return randomUniform(RandomUniform.MINVAL, RandomUniform.MAXVAL);
  }

  /** Uniform in [{@code minval}, {@code maxval}). */
  public static Initializer randomUniform(double minval, double maxval) {
    return new RandomUniform(minval, maxval, null);
  }

  /** Uniform in [{@code minval}, {@code maxval}), the same each time. */
  public static Initializer randomUniform(double minval, double maxval, long seed) {
    return new RandomUniform(minval, maxval, seed);
  }

  /** Normal with mean 0 and standard deviation 0.05. */
  public static Initializer randomNormal() {
    return randomNormal(RandomNormal.MEAN, RandomNormal.STDDEV);
  }

  public static Initializer randomNormal(double mean, double stddev) {
    return new RandomNormal(false, mean, stddev, null);
  }

  public static Initializer randomNormal(double mean, double stddev, long seed) {
    return new RandomNormal(false, mean, stddev, seed);
  }

  /** Normal with mean 0 and standard deviation 0.05, drawn again outside of [-0.1, 0.1]. */
  public static Initializer truncatedNormal() {
    return truncatedNormal(RandomNormal.MEAN, RandomNormal.STDDEV);
  }

  /** Normal, drawn again where it is more than two {@code stddev} from {@code mean}. */
  public static Initializer truncatedNormal(double mean, double stddev) {
    return new RandomNormal(true, mean, stddev, null);
  }

  /** Normal, drawn again where it is more than two {@code stddev} from {@code mean}. */
  public static Initializer truncatedNormal(double mean, double stddev, long seed) {
    return new RandomNormal(true, mean, stddev, seed);
  }

  // ------------------------------------------------------------------------------------------------ by the shape

  /**
   * Random values of variance {@code scale / n}. A parameter of shape {@code [C]} has C inputs and
   * C outputs; of shape {@code [1, 3, 1, 5]}, 3 and 15.
   *
   * @param scale more than 0
   * @param mode {@code "fan_in"}, {@code "fan_out"} or {@code "fan_avg"}: n is the number of
   *     inputs, of outputs, or half their sum, and at least 1
   * @param distribution {@code "truncated_normal"} (also {@code "normal"}), {@code
   *     "untruncated_normal"} or {@code "uniform"}
   * @throws IllegalArgumentException for other arguments
   */
  public static Initializer varianceScaling(double scale, String mode, String distribution) {
    return VarianceScaling.of(scale, mode, distribution, null);
  }

  /** The same each time; see {@link #varianceScaling(double, String, String)}. */
  public static Initializer varianceScaling(
      double scale, String mode, String distribution, long seed) {
    return VarianceScaling.of(scale, mode, distribution, seed);
  }

  /** Uniform within the root of 6 / (inputs + outputs): what Keras takes for {@code None}. */
  public static Initializer glorotUniform() {
    return glorot(VarianceScaling.UNIFORM, null);
  }

  public static Initializer glorotUniform(long seed) {
    return glorot(VarianceScaling.UNIFORM, seed);
  }

  /** Truncated normal of variance 2 / (inputs + outputs). */
  public static Initializer glorotNormal() {
    return glorot(VarianceScaling.TRUNCATED, null);
  }

  public static Initializer glorotNormal(long seed) {
    return glorot(VarianceScaling.TRUNCATED, seed);
  }

  /** Uniform within the root of 3 / inputs. */
  public static Initializer lecunUniform() {
    return lecun(VarianceScaling.UNIFORM, null);
  }

  public static Initializer lecunUniform(long seed) {
    return lecun(VarianceScaling.UNIFORM, seed);
  }

  /** Truncated normal of variance 1 / inputs. */
  public static Initializer lecunNormal() {
    return lecun(VarianceScaling.TRUNCATED, null);
  }

  public static Initializer lecunNormal(long seed) {
    return lecun(VarianceScaling.TRUNCATED, seed);
  }

  /** Uniform within the root of 6 / inputs. */
  public static Initializer heUniform() {
    return he(VarianceScaling.UNIFORM, null);
  }

  public static Initializer heUniform(long seed) {
    return he(VarianceScaling.UNIFORM, seed);
  }

  /** Truncated normal of variance 2 / inputs. */
  public static Initializer heNormal() {
    return he(VarianceScaling.TRUNCATED, null);
  }

  public static Initializer heNormal(long seed) {
    return he(VarianceScaling.TRUNCATED, seed);
  }

  // ------------------------------------------------------------------------------------------------ matrices

  /**
   * A random matrix with orthonormal rows or columns, whichever are fewer, times {@code gain};
   * dimensions before the last are one.
   *
   * <p>It refuses parameters of rank 0 and 1, and so those of a layer with one axis.
   */
  public static Initializer orthogonal(double gain) {
    return new Orthogonal(gain, null);
  }

  /** The same each time; see {@link #orthogonal(double)}. */
  public static Initializer orthogonal(double gain, long seed) {
    return new Orthogonal(gain, seed);
  }

  /**
   * {@code gain} on the diagonal and 0 elsewhere.
   *
   * <p>It refuses parameters whose rank is not 2, and so those of a layer with one axis.
   */
  public static Initializer identity(double gain) {
    return new Identity(gain);
  }

  // ------------------------------------------------------------------------------------------------ names

  private static Initializer glorot(String distribution, Long seed) {
    return scaling("Glorot", 1, VarianceScaling.FAN_AVG, distribution, seed);
  }

  private static Initializer lecun(String distribution, Long seed) {
    return scaling("Lecun", 1, VarianceScaling.FAN_IN, distribution, seed);
  }

  private static Initializer he(String distribution, Long seed) {
    return scaling("He", 2, VarianceScaling.FAN_IN, distribution, seed);
  }

  private static Initializer scaling(
      String author, double scale, String mode, String distribution, Long seed) {
    String suffix = distribution.equals(VarianceScaling.UNIFORM) ? "Uniform" : "Normal";
    return new VarianceScaling(author + suffix, scale, mode, distribution, seed);
  }

  private static Catalog<Initializer> catalog() {
    Catalog<Initializer> catalog = new Catalog<>("initializer", Initializer.class);
    add(catalog, p -> zeros(), "Zeros", "zeros", "zero");
    add(catalog, p -> ones(), "Ones", "ones", "one");
    add(catalog, p -> constant(p.number("value", 0)), "Constant", "constant");
    add(
        catalog,
        p ->
            new RandomUniform(
                p.number("minval", RandomUniform.MINVAL),
                p.number("maxval", RandomUniform.MAXVAL),
                p.seed()),
        "RandomUniform",
        "random_uniform",
        "uniform");
    add(catalog, p -> normal(false, p), "RandomNormal", "random_normal", "normal");
    add(catalog, p -> normal(true, p), "TruncatedNormal", "truncated_normal");
    add(
        catalog,
        p ->
            VarianceScaling.of(
                p.number("scale", VarianceScaling.SCALE),
                p.text("mode", VarianceScaling.FAN_IN),
                p.text("distribution", VarianceScaling.TRUNCATED),
                p.seed()),
        "VarianceScaling",
        "variance_scaling");
    addScaling(
        catalog, p -> glorot(VarianceScaling.UNIFORM, p.seed()), "GlorotUniform", "glorot_uniform");
    addScaling(
        catalog, p -> glorot(VarianceScaling.TRUNCATED, p.seed()), "GlorotNormal", "glorot_normal");
    addScaling(
        catalog, p -> lecun(VarianceScaling.UNIFORM, p.seed()), "LecunUniform", "lecun_uniform");
    addScaling(
        catalog, p -> lecun(VarianceScaling.TRUNCATED, p.seed()), "LecunNormal", "lecun_normal");
    addScaling(catalog, p -> he(VarianceScaling.UNIFORM, p.seed()), "HeUniform", "he_uniform");
    addScaling(catalog, p -> he(VarianceScaling.TRUNCATED, p.seed()), "HeNormal", "he_normal");
    add(
        catalog,
        p -> new Orthogonal(p.number("gain", Orthogonal.GAIN), p.seed()),
        "Orthogonal",
        "orthogonal");
    add(catalog, p -> identity(p.number("gain", Identity.GAIN)), "Identity", "identity");
    return catalog;
  }

  private static RandomNormal normal(boolean truncated, Parameters p) {
    return new RandomNormal(
        truncated,
        p.number("mean", RandomNormal.MEAN),
        p.number("stddev", RandomNormal.STDDEV),
        p.seed());
  }

  /** These alone have the suffix V2 on their other name too. */
  private static void addScaling(
      Catalog<Initializer> catalog,
      Function<Parameters, Initializer> reader,
      String className,
      String name) {
    add(catalog, reader, className, name, name + "V2");
  }

  private static void add(
      Catalog<Initializer> catalog,
      Function<Parameters, Initializer> reader,
      String className,
      String... names) {
    Function<Parameters, Initializer> withDtype =
        parameters -> {
          // Older versions wrote it, and Keras drops it: the parameter's own dtype counts.
          parameters.ignore("dtype");
          return reader.apply(parameters);
        };
    catalog.add(withDtype, className, className + "V2").add(withDtype, names);
  }
}
