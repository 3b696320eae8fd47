package io.github.syncbn4j.gpu;

/** One channel of a training step and of inference, in float64 on the host. */
final class Reference {
  static final double EPSILON = 1e-3;

  final double mean;
  final double variance;
  final double[] y;
  final double[] dx;
  final double gammaGradient;
  final double betaGradient;
  private final double[] x;
  private final double gamma;
  private final double beta;

  Reference(double[] x, double[] dy, double gamma, double beta) {
    this.x = x;
    this.gamma = gamma;
    this.beta = beta;
    int n = x.length;
    double sum = 0;
    for (double value : x) {
      sum += value;
    }
    mean = sum / n;
    double squares = 0;
    for (double value : x) {
      squares += (value - mean) * (value - mean);
    }
    variance = squares / n;
    double sigma = Math.sqrt(variance + EPSILON);
    y = new double[n];
    double sumDy = 0;
    double sumDyXhat = 0;
    for (int i = 0; i < n; i++) {
      double xhat = (x[i] - mean) / sigma;
      y[i] = xhat * gamma + beta;
      sumDy += dy[i];
      sumDyXhat += dy[i] * xhat;
    }
    gammaGradient = sumDyXhat;
    betaGradient = sumDy;
    dx = new double[n];
    for (int i = 0; i < n; i++) {
      double xhat = (x[i] - mean) / sigma;
      dx[i] = gamma / sigma * (dy[i] - sumDy / n - xhat * sumDyXhat / n);
    }
  }

  /** With given statistics. */
  double[] inference(double movingMean, double movingVariance) {
    double scale = gamma / Math.sqrt(movingVariance + EPSILON);
    double[] values = new double[x.length];
    for (int i = 0; i < values.length; i++) {
      values[i] = (x[i] - movingMean) * scale + beta;
    }
    return values;
  }

  /** Largest difference, in parts of the largest value; NaN where something is not a number. */
  static double error(double[] got, double[] want) {
    double scale = 0;
    double error = 0;
    for (int i = 0; i < want.length; i++) {
      scale = Math.max(scale, Math.abs(want[i]));
      error = Math.max(error, Math.abs(got[i] - want[i])); // Math.max keeps NaN
    }
    return error / scale;
  }
}
