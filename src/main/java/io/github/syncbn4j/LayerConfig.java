package io.github.syncbn4j;

import io.github.syncbn4j.nn.Constraint;
import io.github.syncbn4j.nn.Initializer;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizer;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A layer's validated options, by Keras' names where Keras has them.
 *
 * @param cumulative whether the moving statistics are the average of all steps
 * @param unbiased whether the moving variance is of the unbiased kind, as PyTorch's
 * @param adjustment null if there is none
 * @param batchInputShape as given, {@link InputSpec#UNKNOWN} for any size; null if it was not
 */
record LayerConfig(
    String name,
    DType dtype,
    InputSpec input,
    double momentum,
    boolean cumulative,
    double epsilon,
    boolean center,
    boolean scale,
    VariableInitializers initializers,
    ParameterRegularizers regularizers,
    ParameterConstraints constraints,
    boolean renorm,
    RenormClipping clipping,
    double renormMomentum,
    boolean unbiased,
    boolean relu,
    Adjustment adjustment,
    long[] batchInputShape) {

  /** A null is Keras' own choice where none is given: {@code glorot_uniform}. */
  record VariableInitializers(
      Initializer beta, Initializer gamma, Initializer movingMean, Initializer movingVariance) {}

  /** A null is none. */
  record ParameterRegularizers(Regularizer beta, Regularizer gamma) {}

  /** A null is none. */
  record ParameterConstraints(Constraint beta, Constraint gamma) {}

  long channels() {
    return input.channels();
  }

  /** Names of the variables that have gradients, in Keras' order. */
  List<String> parameters() {
    return List.copyOf(ofParameters(scale, center).keySet());
  }

  /** The regularizers of variables that there are, by the variable's name, in Keras' order. */
  Map<String, Regularizer> regularized() {
    return ofParameters(regularizers.gamma(), regularizers.beta());
  }

  /** The constraints of variables that there are, by the variable's name. */
  Map<String, Constraint> constrained() {
    return ofParameters(constraints.gamma(), constraints.beta());
  }

  private <T> Map<String, T> ofParameters(T gamma, T beta) {
    Map<String, T> present = new LinkedHashMap<>();
    if (scale && gamma != null) {
      present.put("gamma", gamma);
    }
    if (center && beta != null) {
      present.put("beta", beta);
    }
    return present;
  }

  /**
   * First values of the variables, by name and in the order of Keras' {@code weights}. Drawn anew
   * by each call, if they are random.
   */
  Map<String, double[]> initialValues() {
    long[] shape = input.parameterShape();
    Map<String, double[]> values = new LinkedHashMap<>();
    if (scale) {
      values.put("gamma", values(initializers.gamma(), shape));
    }
    if (center) {
      values.put("beta", values(initializers.beta(), shape));
    }
    double[] mean = values(initializers.movingMean(), shape);
    double[] variance = values(initializers.movingVariance(), shape);
    values.put("moving_mean", mean);
    values.put("moving_variance", variance);
    if (renorm) {
      double[] stddev = new double[variance.length];
      for (int c = 0; c < stddev.length; c++) {
        stddev[c] = Math.sqrt(variance[c]);
      }
      values.put("moving_stddev", stddev);
      values.put("renorm_mean", mean);
      values.put("renorm_stddev", stddev);
    }
    return values;
  }

  private static double[] values(Initializer initializer, long[] shape) {
    return (initializer == null ? Initializers.glorotUniform() : initializer).values(shape);
  }
}
