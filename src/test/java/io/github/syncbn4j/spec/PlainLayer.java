package io.github.syncbn4j.spec;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The layer's formulas as the specification writes them (sections 2 and 3), in plain float64 loops
 * over the elements of all replicas. Nothing here is fast, and nothing is shared with the library.
 */
final class PlainLayer {
  /**
   * A result, by the name that {@link TestedLayer} gives it.
   *
   * @param scale what rounding errors are relative to: the largest sum, over the values, of the
   *     absolute values of the terms that a value is the sum of
   * @param ofTensor whether the layer rounds it to the dtype of its tensors, or to its parameters'
   */
  record Result(double[] values, double scale, boolean ofTensor) {}

  private final Options options;
  private final int channels;

  /** Gamma, beta and the moving statistics by Keras' names, in Keras' order. */
  final Map<String, double[]> variables = new LinkedHashMap<>();

  boolean trainable = true;
  long countedSteps;

  /** Per rank, as the last backward left them. */
  private final List<Map<String, Result>> parameterGradients = new ArrayList<>();

  private final Map<String, Double> stateScales = new LinkedHashMap<>();

  // Of the last step, by channel; mean and variance of the batch, or the moving ones.
  double[] mean;
  double[] variance;
  private long[] count;
  private double[] sigma;
  private double[] r;
  private double[] d;
  private double[] dScale;
  private boolean ofBatch;

  PlainLayer(Options options, int channels, int replicas) {
    this.options = options;
    this.channels = channels;
    if (options.scale) {
      variables.put("gamma", filled(1));
    }
    if (options.center) {
      variables.put("beta", filled(0));
    }
    variables.put("moving_mean", filled(0));
    variables.put("moving_variance", filled(1));
    if (options.renorm) {
      variables.put("moving_stddev", filled(1));
      variables.put("renorm_mean", filled(0));
      variables.put("renorm_stddev", filled(1));
    }
    for (int rank = 0; rank < replicas; rank++) {
      Map<String, Result> none = new LinkedHashMap<>();
      for (String name : List.of("gamma", "beta")) {
        if (variables.containsKey(name)) {
          none.put(name, new Result(new double[channels], 0, false));
        }
      }
      parameterGradients.add(none);
    }
  }

  private double[] filled(double value) {
    double[] values = new double[channels];
    Arrays.fill(values, value);
    return values;
  }

  /** Takes the mean and variance that the step normalizes with. */
  private List<int[]> begin(Step step) {
    ofBatch = step.training && trainable;
    List<int[]> channelOf =
        step.x.stream().map(x -> PlainPlaces.channels(x, options.axis)).toList();
    if (ofBatch) {
      takeBatchStatistics(step, channelOf);
    } else {
      mean = variables.get("moving_mean").clone();
      variance = variables.get("moving_variance").clone();
      count = new long[channels];
    }
    sigma = new double[channels];
    for (int c = 0; c < channels; c++) {
      sigma[c] = Math.sqrt(variance[c] + options.epsilon);
    }
    takeRenormCorrection();
    return channelOf;
  }

  /** What the ReLU of such a step would see. Changes no state. */
  double[] beforeRelu(Step step, int rank) {
    int[] channelOf = begin(step).get(rank);
    double[] v = new double[channelOf.length];
    for (int i = 0; i < v.length; i++) {
      v[i] = v(step, rank, i, channelOf[i]);
    }
    return v;
  }

  /** Results by name. */
  Map<String, Result> step(Step step) {
    List<int[]> channelOf = begin(step);
    Map<String, Result> results = new LinkedHashMap<>();
    for (int rank = 0; rank < step.x.size(); rank++) {
      results.put("y of rank " + rank, y(step, rank, channelOf.get(rank)));
    }
    if (step.dy != null) {
      results.putAll(backward(step, channelOf));
    }
    if (ofBatch) {
      updateState();
    }
    for (int rank = 0; rank < step.x.size(); rank++) {
      for (Map.Entry<String, Result> gradient : parameterGradients.get(rank).entrySet()) {
        results.put(gradient.getKey() + " gradient of rank " + rank, gradient.getValue());
      }
      for (Map.Entry<String, double[]> variable : variables.entrySet()) {
        double[] values = variable.getValue().clone();
        results.put(
            variable.getKey() + " of rank " + rank,
            new Result(values, stateScale(variable.getKey()), false));
      }
    }
    return results;
  }

  // ------------------------------------------------------------------------------------------------- forward

  private void takeBatchStatistics(Step step, List<int[]> channelOf) {
    mean = new double[channels];
    variance = new double[channels];
    count = new long[channels];
    for (int c = 0; c < channels; c++) {
      double sum = 0;
      for (int rank = 0; rank < step.x.size(); rank++) {
        for (int i = 0; i < channelOf.get(rank).length; i++) {
          if (channelOf.get(rank)[i] == c && PlainPlaces.counts(step, rank, i)) {
            sum += step.x.get(rank).data()[i];
            count[c]++;
          }
        }
      }
      if (count[c] == 0) {
        continue; // normalized with mean 0 and variance 0
      }
      mean[c] = sum / count[c];
      double squares = 0;
      for (int rank = 0; rank < step.x.size(); rank++) {
        for (int i = 0; i < channelOf.get(rank).length; i++) {
          if (channelOf.get(rank)[i] == c && PlainPlaces.counts(step, rank, i)) {
            double deviation = step.x.get(rank).data()[i] - mean[c];
            squares += deviation * deviation;
          }
        }
      }
      variance[c] = squares / count[c];
    }
  }

  private void takeRenormCorrection() {
    r = filled(1);
    d = filled(0);
    dScale = filled(0);
    if (!options.renorm || !ofBatch) {
      return;
    }
    for (int c = 0; c < channels; c++) {
      double limit = Math.max(variables.get("renorm_stddev")[c], Math.sqrt(options.epsilon));
      double renormMean = variables.get("renorm_mean")[c];
      r[c] = sigma[c] / limit;
      d[c] = (mean[c] - renormMean) / limit;
      dScale[c] = (Math.abs(mean[c]) + Math.abs(renormMean)) / limit;
      if (options.rmin != null) {
        r[c] = Math.max(r[c], options.rmin);
      }
      if (options.rmax != null) {
        r[c] = Math.min(r[c], options.rmax);
      }
      if (options.dmax != null) {
        d[c] = Math.min(Math.max(d[c], -options.dmax), options.dmax);
      }
    }
  }

  private double gamma(int c) {
    return options.scale ? variables.get("gamma")[c] : 1;
  }

  private double beta(int c) {
    return options.center ? variables.get("beta")[c] : 0;
  }

  private double xhat(Step step, int rank, int i, int c) {
    return (step.x.get(rank).data()[i] - mean[c]) / sigma[c];
  }

  /** A factor of the adjustment, or {@code absent}; one of training alone. */
  private double factor(List<Values> factors, Step step, int rank, int i, double absent) {
    if (factors == null || !ofBatch) {
      return absent;
    }
    return PlainPlaces.broadcast(factors.get(rank), step.x.get(rank).shape(), i);
  }

  /** What gamma multiplies. */
  private double z(Step step, int rank, int i, int c) {
    return (xhat(step, rank, i, c) * r[c] + d[c]) * factor(step.adjustScale, step, rank, i, 1)
        + factor(step.adjustBias, step, rank, i, 0);
  }

  private double zScale(Step step, int rank, int i, int c) {
    return (Math.abs(xhat(step, rank, i, c) * r[c]) + dScale[c])
            * Math.abs(factor(step.adjustScale, step, rank, i, 1))
        + Math.abs(factor(step.adjustBias, step, rank, i, 0));
  }

  /** Before the ReLU. */
  private double v(Step step, int rank, int i, int c) {
    double residual = step.residual == null ? 0 : step.residual.get(rank).data()[i];
    return z(step, rank, i, c) * gamma(c) + beta(c) + residual;
  }

  private Result y(Step step, int rank, int[] channelOf) {
    double[] y = new double[channelOf.length];
    double scale = 0;
    for (int i = 0; i < y.length; i++) {
      int c = channelOf[i];
      double v = v(step, rank, i, c);
      y[i] = options.relu ? Math.max(v, 0) : v;
      double residual = step.residual == null ? 0 : step.residual.get(rank).data()[i];
      scale =
          largest(
              scale,
              zScale(step, rank, i, c) * Math.abs(gamma(c))
                  + Math.abs(beta(c))
                  + Math.abs(residual));
    }
    return new Result(y, scale, true);
  }

  private static double largest(double scale, double candidate) {
    return Double.isNaN(candidate) ? scale : Math.max(scale, candidate);
  }

  // ------------------------------------------------------------------------------------------------- backward

  /** The gradient by v: behind a ReLU, 0 where v was not above 0. */
  private double g(Step step, int rank, int i, int c) {
    boolean passes = !options.relu || v(step, rank, i, c) > 0;
    return passes ? step.dy.get(rank).data()[i] : 0;
  }

  private Map<String, Result> backward(Step step, List<int[]> channelOf) {
    // Over all replicas: sums of A * g and A * g * xhat, A the adjustment's scale.
    double[] sum = new double[channels];
    double[] sumXhat = new double[channels];
    double[] sumScale = new double[channels];
    double[] sumXhatScale = new double[channels];
    for (int rank = 0; rank < step.x.size(); rank++) {
      double[] betaGradient = new double[channels];
      double[] gammaGradient = new double[channels];
      double[] betaScale = new double[channels];
      double[] gammaScale = new double[channels];
      for (int i = 0; i < channelOf.get(rank).length; i++) {
        int c = channelOf.get(rank)[i];
        double g = g(step, rank, i, c);
        if (g == 0 && !PlainPlaces.counts(step, rank, i)) {
          continue; // adds nothing, even if x is NaN
        }
        double a = factor(step.adjustScale, step, rank, i, 1);
        double xhat = xhat(step, rank, i, c);
        sum[c] += a * g;
        sumXhat[c] += a * g * xhat;
        sumScale[c] += Math.abs(a * g);
        sumXhatScale[c] += Math.abs(a * g * xhat);
        betaGradient[c] += g;
        betaScale[c] += Math.abs(g);
        gammaGradient[c] += g * z(step, rank, i, c);
        gammaScale[c] += Math.abs(g) * zScale(step, rank, i, c);
      }
      if (trainable) {
        Map<String, Result> gradients = parameterGradients.get(rank);
        gradients.computeIfPresent("gamma", (n, o) -> result(gammaGradient, gammaScale));
        gradients.computeIfPresent("beta", (n, o) -> result(betaGradient, betaScale));
      }
    }
    Map<String, Result> results = new LinkedHashMap<>();
    for (int rank = 0; rank < step.x.size(); rank++) {
      int[] channel = channelOf.get(rank);
      double[] dx = new double[channel.length];
      double[] dresidual = new double[channel.length];
      double scale = 0;
      for (int i = 0; i < dx.length; i++) {
        int c = channel[i];
        double g = g(step, rank, i, c);
        double factor = gamma(c) * r[c] / sigma[c];
        double own = factor(step.adjustScale, step, rank, i, 1) * g;
        double throughStatistics = 0;
        double throughScale = 0;
        if (ofBatch && count[c] > 0 && PlainPlaces.counts(step, rank, i)) {
          double xhat = xhat(step, rank, i, c);
          throughStatistics = sum[c] / count[c] + xhat * sumXhat[c] / count[c];
          throughScale = sumScale[c] / count[c] + Math.abs(xhat) * sumXhatScale[c] / count[c];
        }
        dx[i] = factor * (own - throughStatistics);
        scale = largest(scale, Math.abs(factor) * (Math.abs(own) + throughScale));
        dresidual[i] = g;
      }
      results.put("dx of rank " + rank, new Result(dx, scale, true));
      if (step.residual != null) {
        results.put("dresidual of rank " + rank, new Result(dresidual, 0, true));
      }
    }
    return results;
  }

  private static Result result(double[] values, double[] scales) {
    return new Result(values, Arrays.stream(scales).reduce(0, PlainLayer::largest), false);
  }

  // ------------------------------------------------------------------------------------------------- state

  private void updateState() {
    double decay = options.cumulative ? 1.0 / (countedSteps + 1) : 1 - options.momentum;
    double renormDecay = 1 - options.renormMomentum;
    boolean stepped = false;
    for (int c = 0; c < channels; c++) {
      if (count[c] == 0) {
        continue;
      }
      stepped = true;
      move("moving_mean", c, mean[c], decay);
      if (options.renorm) {
        move("renorm_mean", c, mean[c], renormDecay);
        move("renorm_stddev", c, sigma[c], renormDecay);
        move("moving_stddev", c, sigma[c], decay);
        double stddev = variables.get("moving_stddev")[c];
        variables.get("moving_variance")[c] = Math.max(stddev * stddev - options.epsilon, 0);
      } else {
        double bessel = options.unbiased && count[c] > 1 ? count[c] / (count[c] - 1.0) : 1;
        move("moving_variance", c, variance[c] * bessel, decay);
      }
    }
    if (stepped) {
      countedSteps++;
    }
  }

  private void move(String name, int c, double towards, double decay) {
    double[] moving = variables.get(name);
    moving[c] += (towards - moving[c]) * decay;
  }

  /**
   * A variable is made of its values before and of those of the batches that it moved towards;
   * these are the largest.
   */
  private double stateScale(String name) {
    double scale =
        Arrays.stream(variables.get(name))
            .map(Math::abs)
            .reduce(stateScales.getOrDefault(name, 0.0), PlainLayer::largest);
    for (int c = 0; c < channels && ofBatch; c++) {
      double batch =
          switch (name) {
            case "gamma", "beta" -> 0;
            case "moving_mean", "renorm_mean" -> Math.abs(mean[c]) + sigma[c];
            case "moving_variance" -> variance[c] + 2 * options.epsilon;
            default -> sigma[c];
          };
      scale = largest(scale, batch);
    }
    stateScales.put(name, scale);
    return scale;
  }
}
