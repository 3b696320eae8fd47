package io.github.syncbn4j.nn;

import java.util.Arrays;
import java.util.Map;

/** The same value everywhere: Keras' {@code Zeros}, {@code Ones} and {@code Constant}. */
record Constant(String className, double value) implements Initializer, KerasObject {
  private static final String NAME = "Constant";

  static final Constant ZEROS = new Constant("Zeros", 0);
  static final Constant ONES = new Constant("Ones", 1);

  Constant {
    KerasObject.requireFinite("value", value);
  }

  static Constant of(double value) {
    return new Constant(NAME, value);
  }

  @Override
  public void fill(double[] values, long... shape) {
    ParameterShape.requireFits(values, shape);
    Arrays.fill(values, value);
  }

  @Override
  public Map<String, Object> config() {
    return className.equals(NAME) ? KerasObject.entries("value", value) : KerasObject.entries();
  }
}
