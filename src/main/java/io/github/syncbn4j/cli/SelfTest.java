package io.github.syncbn4j.cli;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/**
 * Training steps of a small layer on every replica of a group, again and again for a time, each
 * compared with the formulas in float64.
 */
final class SelfTest {
  /** Of each replica. */
  private static final int ROWS = 300;

  private static final int CHANNELS = 20;
  private static final double EPSILON = 1e-3;

  /** Of values of about 1 in float32. */
  private static final double MOST_ERROR = 1e-5;

  /**
   * @param error the largest difference of y and dx from the formulas; NaN if they have one
   */
  record Outcome(int steps, double error) {
    boolean isRight() {
      return error <= MOST_ERROR;
    }

    @Override
    public String toString() {
      return "%d steps, largest error %.1e of %.0e allowed".formatted(steps, error, MOST_ERROR);
    }
  }

  private final List<Replica> replicas;
  private final double[] x;
  private final double[] dy;
  private final double[] y;
  private final double[] dx;

  private SelfTest(List<Replica> replicas) {
    this.replicas = replicas;
    Random random = new Random(1);
    int n = replicas.size() * ROWS * CHANNELS;
    x = random.doubles(n, -1, 1).map(value -> (float) (3 + value)).toArray();
    dy = random.doubles(n, -1, 1).map(value -> (float) value).toArray();
    y = new double[n];
    dx = new double[n];
    for (int c = 0; c < CHANNELS; c++) {
      expect(c);
    }
  }

  private void expect(int channel) {
    double count = (double) x.length / CHANNELS;
    double mean = 0;
    for (int i = channel; i < x.length; i += CHANNELS) {
      mean += x[i] / count;
    }
    double variance = 0;
    for (int i = channel; i < x.length; i += CHANNELS) {
      variance += (x[i] - mean) * (x[i] - mean) / count;
    }
    double inverse = 1 / Math.sqrt(variance + EPSILON);
    double gradient = 0;
    double gradientY = 0;
    for (int i = channel; i < x.length; i += CHANNELS) {
      y[i] = (x[i] - mean) * inverse;
      gradient += dy[i] / count;
      gradientY += dy[i] * y[i] / count;
    }
    for (int i = channel; i < x.length; i += CHANNELS) {
      dx[i] = inverse * (dy[i] - gradient - y[i] * gradientY);
    }
  }

  /** At least one step. */
  static Outcome run(ReplicaGroup group, Duration time) {
    return new SelfTest(group.replicas())
        .run(SyncBatchNormalization.builder(group, CHANNELS), time);
  }

  private Outcome run(SyncBatchNormalization.Builder builder, Duration time) {
    try (SyncBatchNormalization layer = builder.epsilon(EPSILON).build()) {
      List<DeviceTensor> inputs = tensors(x);
      List<DeviceTensor> gradients = tensors(dy);
      List<DeviceTensor> outputs = tensors(new double[x.length]);
      List<DeviceTensor> inputGradients = tensors(new double[x.length]);
      int steps = 0;
      double error = 0;
      long end = System.nanoTime() + time.toNanos();
      do {
        try (ForwardPass pass = layer.forward(inputs, outputs, true)) {
          layer.backward(pass, gradients, inputGradients);
        }
        steps++;
        // Math.max keeps NaN.
        error = Math.max(error, Math.max(error(outputs, y), error(inputGradients, dx)));
      } while (System.nanoTime() < end);
      return new Outcome(steps, error);
    }
  }

  /** A part of the rows for each replica; the group owns them. */
  private List<DeviceTensor> tensors(double[] values) {
    int each = ROWS * CHANNELS;
    List<DeviceTensor> tensors = new ArrayList<>();
    for (int i = 0; i < replicas.size(); i++) {
      DeviceTensor tensor = replicas.get(i).allocate(DType.FLOAT32, ROWS, CHANNELS);
      tensor.copyFromHost(Arrays.copyOfRange(values, i * each, (i + 1) * each));
      tensors.add(tensor);
    }
    return tensors;
  }

  private static double error(List<DeviceTensor> tensors, double[] expected) {
    double error = 0;
    int i = 0;
    for (DeviceTensor tensor : tensors) {
      for (double value : tensor.copyToHostAsDoubles()) {
        error = Math.max(error, Math.abs(value - expected[i++]));
      }
    }
    return error;
  }
}
