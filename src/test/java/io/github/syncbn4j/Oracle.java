package io.github.syncbn4j;

import java.util.List;

/**
 * The layer's formulas in plain float64 loops over all replicas' examples, channels last. Nothing
 * here is fast or clever, and nothing is shared with the library.
 */
final class Oracle {
  final int channels;
  final double momentum;
  final double epsilon;
  final double[] gamma;
  final double[] beta;
  final double[] movingMean;
  final double[] movingVariance;
  private double[] mean;
  private double[] sigma;
  private long count;
  private boolean training;

  Oracle(int channels, double momentum, double epsilon) {
    this.channels = channels;
    this.momentum = momentum;
    this.epsilon = epsilon;
    this.gamma = filled(1);
    this.beta = filled(0);
    this.movingMean = filled(0);
    this.movingVariance = filled(1);
  }

  private double[] filled(double value) {
    double[] values = new double[channels];
    java.util.Arrays.fill(values, value);
    return values;
  }

  /** The outputs, a row of examples a replica. */
  List<double[]> forward(List<float[]> x, boolean training) {
    this.training = training;
    mean = new double[channels];
    sigma = new double[channels];
    count = 0;
    for (float[] share : x) {
      count += share.length / channels;
    }
    for (int c = 0; c < channels; c++) {
      double variance;
      if (training) {
        mean[c] = sum(x, c, 0) / count;
        variance = sumOfSquares(x, c, mean[c]) / count;
        if (count > 0) {
          movingMean[c] += (mean[c] - movingMean[c]) * (1 - momentum);
          movingVariance[c] += (variance - movingVariance[c]) * (1 - momentum);
        }
      } else {
        mean[c] = movingMean[c];
        variance = movingVariance[c];
      }
      sigma[c] = Math.sqrt(variance + epsilon);
    }
    return x.stream().map(this::normalize).toList();
  }

  private double[] normalize(float[] x) {
    double[] y = new double[x.length];
    for (int i = 0; i < x.length; i++) {
      int c = i % channels;
      y[i] = (x[i] - mean[c]) / sigma[c] * gamma[c] + beta[c];
    }
    return y;
  }

  /** The input gradients of the last forward. */
  List<double[]> backward(List<float[]> x, List<float[]> dy) {
    double[] meanDy = new double[channels];
    double[] meanDyXhat = new double[channels];
    if (training) {
      for (int r = 0; r < x.size(); r++) {
        for (int i = 0; i < x.get(r).length; i++) {
          int c = i % channels;
          meanDy[c] += dy.get(r)[i] / (double) count;
          meanDyXhat[c] += dy.get(r)[i] * xhat(x.get(r), i) / count;
        }
      }
    }
    List<double[]> dx = new java.util.ArrayList<>();
    for (int r = 0; r < x.size(); r++) {
      double[] share = new double[x.get(r).length];
      for (int i = 0; i < share.length; i++) {
        int c = i % channels;
        share[i] =
            gamma[c] / sigma[c] * (dy.get(r)[i] - meanDy[c] - xhat(x.get(r), i) * meanDyXhat[c]);
      }
      dx.add(share);
    }
    return dx;
  }

  double[] gammaGradient(float[] x, float[] dy) {
    double[] gradient = new double[channels];
    for (int i = 0; i < x.length; i++) {
      gradient[i % channels] += dy[i] * xhat(x, i);
    }
    return gradient;
  }

  double[] betaGradient(float[] dy) {
    double[] gradient = new double[channels];
    for (int i = 0; i < dy.length; i++) {
      gradient[i % channels] += dy[i];
    }
    return gradient;
  }

  private double xhat(float[] x, int i) {
    return (x[i] - mean[i % channels]) / sigma[i % channels];
  }

  private double sum(List<float[]> x, int c, double shift) {
    double sum = 0;
    for (float[] share : x) {
      for (int i = c; i < share.length; i += channels) {
        sum += share[i] - shift;
      }
    }
    return sum;
  }

  private double sumOfSquares(List<float[]> x, int c, double mean) {
    double sum = 0;
    for (float[] share : x) {
      for (int i = c; i < share.length; i += channels) {
        sum += (share[i] - mean) * (share[i] - mean);
      }
    }
    return sum;
  }
}
