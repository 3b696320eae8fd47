package io.github.syncbn4j.nn;

import java.util.Arrays;
import java.util.Map;

/** A matrix with {@code gain} on the diagonal and 0 elsewhere; it need not be square. */
record Identity(double gain) implements Initializer, KerasObject {
  static final double GAIN = 1;

  Identity {
    KerasObject.requireFinite("gain", gain);
  }

  @Override
  public void fill(double[] values, long... shape) {
    if (shape.length != 2) {
      throw new IllegalArgumentException(
          "Identity matrix initializer can only be used for 2D matrices, got shape "
              + Arrays.toString(shape));
    }
    ParameterShape.requireFits(values, shape);
    Arrays.fill(values, 0);
    int columns = (int) shape[1];
    for (int i = 0; i < Math.min(shape[0], columns); i++) {
      values[i * columns + i] = gain;
    }
  }

  @Override
  public String className() {
    return "Identity";
  }

  @Override
  public Map<String, Object> config() {
    return KerasObject.entries("gain", gain);
  }
}
