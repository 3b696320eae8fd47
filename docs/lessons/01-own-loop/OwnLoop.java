import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.zip.GZIPInputStream;

/** Trains a small network on handwritten digits; all but the normalization is plain Java. */
class OwnLoop {
  static final int REPLICAS = 4;
  static final int IMAGES = 8; // a replica and step
  static final int STEPS = 282;
  static final int TRAINING = 47 * REPLICAS * IMAGES; // of 1,797 images; the others test
  static final int PIXELS = 64;
  static final int HIDDEN = 32;
  static final int CLASSES = 10;
  static final float RATE = 0.2f;

  public static void main(String... args) throws IOException {
    Matrix rows = digits(); // 64 pixels, then the class
    Random random = new Random(1);
    Matrix w1 = Matrix.random(PIXELS, HIDDEN, random);
    Matrix w2 = Matrix.random(HIDDEN, CLASSES, random);
    try (ReplicaGroup group = ReplicaGroup.cpus(REPLICAS);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, HIDDEN).momentum(0.9).relu(true).build()) {
      List<DeviceTensor> x = tensors(group), y = tensors(group);
      List<DeviceTensor> dy = tensors(group), dx = tensors(group);
      for (int step = 0; step < STEPS; step++) {
        Matrix[] images = new Matrix[REPLICAS];
        Matrix dw1 = new Matrix(PIXELS, HIDDEN), dw2 = new Matrix(HIDDEN, CLASSES);
        double loss = 0;
        for (int r = 0; r < REPLICAS; r++) {
          images[r] = rows.part((step * REPLICAS + r) * IMAGES % TRAINING, IMAGES);
          x.get(r).copyFromHost(images[r].times(w1).values);
        }
        try (ForwardPass pass = layer.forward(x, y, true)) { // statistics of all 32 images
          for (int r = 0; r < REPLICAS; r++) {
            Matrix hidden = new Matrix(HIDDEN, y.get(r).copyToHost());
            Matrix slopes = hidden.times(w2); // the logits; in the next line their slopes
            loss += crossEntropy(slopes, images[r]);
            dw2.add(1, hidden.transposed().times(slopes));
            dy.get(r).copyFromHost(slopes.times(w2.transposed()).values);
          }
          layer.backward(pass, dy, dx);
        }
        for (int r = 0; r < REPLICAS; r++) {
          Matrix pixels = images[r].transposed().part(0, PIXELS);
          dw1.add(1, pixels.times(new Matrix(HIDDEN, dx.get(r).copyToHost())));
        }
        layer.allReduceGradients(); // gamma's and beta's were of each replica's own images
        w1.add(-RATE, dw1);
        w2.add(-RATE, dw2);
        for (Replica replica : group.replicas()) {
          descend(layer.gamma(replica), layer.gammaGradient(replica));
          descend(layer.beta(replica), layer.betaGradient(replica));
        }
        if (step % 47 == 0) {
          System.out.printf("epoch %d  loss %.3f%n", step / 47, loss);
        }
      }
      System.out.printf("test accuracy %.3f%n", accuracy(layer, rows, w1, w2));
    }
  }

  static List<DeviceTensor> tensors(ReplicaGroup group) {
    return group.replicas().stream()
        .map(replica -> replica.allocate(DType.FLOAT32, IMAGES, HIDDEN))
        .toList();
  }

  static void descend(DeviceTensor parameter, DeviceTensor gradient) {
    Matrix values = new Matrix(HIDDEN, parameter.copyToHost());
    values.add(-RATE, new Matrix(HIDDEN, gradient.copyToHost()));
    parameter.copyFromHost(values.values);
  }

  /** Inference takes one replica: the moving statistics are the same on all. */
  static double accuracy(SyncBatchNormalization layer, Matrix rows, Matrix w1, Matrix w2) {
    Matrix images = rows.part(TRAINING, rows.rows() - TRAINING);
    Replica replica = layer.group().replica(0);
    try (DeviceTensor hidden = replica.allocate(DType.FLOAT32, images.rows(), HIDDEN)) {
      hidden.copyFromHost(images.times(w1).values);
      layer.infer(replica, hidden, hidden);
      Matrix logits = new Matrix(HIDDEN, hidden.copyToHost()).times(w2);
      int right = 0;
      for (int i = 0; i < images.rows(); i++) {
        int best = 0;
        for (int c = 1; c < CLASSES; c++) {
          best = logits.at(i, c) > logits.at(i, best) ? c : best;
        }
        right += best == images.at(i, PIXELS) ? 1 : 0;
      }
      return (double) right / images.rows();
    }
  }

  /** This replica's part of the mean over the whole batch; logits become its slopes by them. */
  static double crossEntropy(Matrix logits, Matrix images) {
    double loss = 0;
    for (int i = 0; i < IMAGES; i++) {
      double sum = 0;
      for (int c = 0; c < CLASSES; c++) {
        sum += StrictMath.exp(logits.at(i, c)); // the same bits on every machine
      }
      int label = (int) images.at(i, PIXELS);
      loss += StrictMath.log(sum) - logits.at(i, label);
      for (int c = 0; c < CLASSES; c++) {
        double slope = StrictMath.exp(logits.at(i, c)) / sum - (c == label ? 1 : 0);
        logits.values[i * CLASSES + c] = (float) (slope / (REPLICAS * IMAGES));
      }
    }
    return loss / (REPLICAS * IMAGES);
  }

  static Matrix digits() throws IOException {
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(
                new GZIPInputStream(
                    ReplicaGroup.class.getResourceAsStream("cli/train/digits.csv.gz"))))) {
      String[] cells = String.join(",", lines.lines().toList()).split(",");
      float[] values = new float[cells.length];
      for (int i = 0; i < values.length; i++) {
        boolean pixel = i % (PIXELS + 1) < PIXELS; // 0 to 16
        values[i] = Float.parseFloat(cells[i]) / (pixel ? 16 : 1);
      }
      return new Matrix(PIXELS + 1, values);
    }
  }

  /** Row-major. Multiplied by one with fewer rows, it goes without its last columns. */
  record Matrix(int columns, float[] values) {
    Matrix(int rows, int columns) {
      this(columns, new float[rows * columns]);
    }

    static Matrix random(int rows, int columns, Random random) {
      Matrix matrix = new Matrix(rows, columns);
      for (int i = 0; i < matrix.values.length; i++) {
        matrix.values[i] = (float) (random.nextGaussian() / StrictMath.sqrt(rows));
      }
      return matrix;
    }

    int rows() {
      return values.length / columns;
    }

    float at(int row, int column) {
      return values[row * columns + column];
    }

    Matrix part(int row, int rows) {
      return new Matrix(columns, Arrays.copyOfRange(values, row * columns, (row + rows) * columns));
    }

    Matrix transposed() {
      Matrix result = new Matrix(columns, rows());
      for (int i = 0; i < values.length; i++) {
        result.values[i % columns * rows() + i / columns] = values[i];
      }
      return result;
    }

    Matrix times(Matrix other) {
      Matrix product = new Matrix(rows(), other.columns);
      for (int i = 0; i < product.values.length; i++) {
        for (int k = 0; k < other.rows(); k++) {
          product.values[i] += at(i / other.columns, k) * other.at(k, i % other.columns);
        }
      }
      return product;
    }

    void add(float factor, Matrix other) {
      for (int i = 0; i < values.length; i++) {
        values[i] += factor * other.values[i];
      }
    }
  }
}
