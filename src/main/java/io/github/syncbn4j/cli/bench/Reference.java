package io.github.syncbn4j.cli.bench;

import java.util.Arrays;
import java.util.List;
import java.util.function.IntToDoubleFunction;

/** What each pass should give, element by element, in float64. */
final class Reference {
  static final double EPSILON = 1e-3;

  private final Operands operands;
  private final int channels;
  private final int inner;
  private final double[] mean;
  private final double[] inverse;

  /** x of the operands is there. */
  Reference(Operands operands) {
    this.operands = operands;
    channels = operands.problem.channels();
    inner = operands.problem.channelsLast() ? 1 : operands.problem.area();
    float[] x = operands.x;
    mean = means(i -> x[i]);
    double[] variance = means(i -> square(x[i] - mean[channel(i)]));
    inverse = new double[channels];
    for (int c = 0; c < channels; c++) {
      inverse[c] = 1 / Math.sqrt(variance[c] + EPSILON);
    }
  }

  private static double square(double value) {
    return value * value;
  }

  private int channel(int i) {
    return i / inner % channels;
  }

  private double[] means(IntToDoubleFunction values) {
    int n = operands.x.length;
    double[] sums = new double[channels];
    for (int i = 0; i < n; i++) {
      sums[channel(i)] += values.applyAsDouble(i);
    }
    for (int c = 0; c < channels; c++) {
      sums[c] /= n / channels;
    }
    return sums;
  }

  private double[] sums(double[] means) {
    double n = (double) operands.x.length / channels;
    return Arrays.stream(means).map(mean -> mean * n).toArray();
  }

  private double xhat(int i) {
    int c = channel(i);
    return (operands.x[i] - mean[c]) * inverse[c];
  }

  /** Before anything is added. */
  double normalized(int i, boolean inference) {
    int c = channel(i);
    double xhat =
        inference
            ? (operands.x[i] - operands.movingMean[c])
                / Math.sqrt(operands.movingVariance[c] + EPSILON)
            : xhat(i);
    return xhat * operands.gamma[c] + operands.beta[c];
  }

  /** The outputs of a pass. */
  Expected of(Pass pass) {
    if (!pass.isBackward()) {
      return new Expected(all(i -> output(pass, i)), null, null);
    }
    double[] dz = all(i -> gradient(pass, i));
    double[] gradient = means(i -> dz[i]);
    double[] gradientXhat = means(i -> dz[i] * xhat(i));
    double[] dx =
        all(
            i -> {
              int c = channel(i);
              double centered = dz[i] - gradient[c] - xhat(i) * gradientXhat[c];
              return operands.gamma[c] * inverse[c] * centered;
            });
    List<double[]> parameters = List.of(sums(gradientXhat), sums(gradient));
    return new Expected(dx, pass.addsAndRectifies() ? dz : null, parameters);
  }

  private double[] all(IntToDoubleFunction values) {
    double[] all = new double[operands.x.length];
    for (int i = 0; i < all.length; i++) {
      all[i] = values.applyAsDouble(i);
    }
    return all;
  }

  private double output(Pass pass, int i) {
    double normalized = normalized(i, pass.isInference());
    return pass.addsAndRectifies() ? Math.max(0, normalized + operands.residual[i]) : normalized;
  }

  /** Of what ReLU lets through. */
  private double gradient(Pass pass, int i) {
    return pass.addsAndRectifies() && normalized(i, false) + operands.residual[i] <= 0
        ? 0
        : operands.dy[i];
  }
}
