import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** Fine-tunes a layer with one example a replica, which would make poor statistics. */
class FrozenStatistics {
  static final int REPLICAS = 2;
  static final float RATE = 0.05f;
  static final Random RANDOM = new Random(1);

  public static void main(String... args) {
    try (ReplicaGroup group = ReplicaGroup.cpus(REPLICAS);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 1).momentum(0.9).build()) {
      List<DeviceTensor> many = tensors(group, 64);
      for (int step = 0; step < 200; step++) {
        many.forEach(FrozenStatistics::draw);
        layer.forward(many, many, true).close();
      }
      double[] mean = layer.getWeights().get(2), variance = layer.getWeights().get(3);
      System.out.printf("trained:    mean %.1f, variance %.1f%n", mean[0], variance[0]);

      // training = false: the moving statistics normalize and stay; gamma and beta learn.
      List<DeviceTensor> x = tensors(group, 1), y = tensors(group, 1), slopes = tensors(group, 1);
      for (int step = 0; step < 400; step++) {
        x.forEach(FrozenStatistics::draw);
        try (ForwardPass pass = layer.forward(x, y, false)) {
          for (int r = 0; r < REPLICAS; r++) {
            float wanted = 2 * (x.get(r).copyToHost()[0] - 5) / 3 + 1;
            slopes.get(r).copyFromHost((y.get(r).copyToHost()[0] - wanted) / REPLICAS);
          }
          layer.backward(pass, slopes, slopes);
        }
        layer.allReduceGradients();
        for (Replica replica : group.replicas()) {
          descend(layer.gamma(replica), layer.gammaGradient(replica));
          descend(layer.beta(replica), layer.betaGradient(replica));
        }
      }
      List<double[]> tuned = layer.getWeights();
      System.out.printf(
          "fine-tuned: gamma %.1f, beta %.1f, the same statistics: %b%n",
          tuned.get(0)[0],
          tuned.get(1)[0],
          Arrays.equals(mean, tuned.get(2)) && Arrays.equals(variance, tuned.get(3)));

      // A layer that is not trainable takes every call for inference.
      layer.setTrainable(false);
      try (ForwardPass pass = layer.forward(x, y, true)) {
        layer.backward(pass, slopes, slopes); // dx alone
        System.out.printf("frozen:     statistics of the batch: %b%n", pass.training());
      }
    }
  }

  static List<DeviceTensor> tensors(ReplicaGroup group, int examples) {
    return group.replicas().stream()
        .map(replica -> replica.allocate(DType.FLOAT32, examples, 1))
        .toList();
  }

  /** Values around 5, give or take 3. */
  static void draw(DeviceTensor x) {
    float[] values = new float[(int) x.elements()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (5 + 3 * RANDOM.nextGaussian());
    }
    x.copyFromHost(values);
  }

  static void descend(DeviceTensor parameter, DeviceTensor gradient) {
    parameter.copyFromHost(parameter.copyToHost()[0] - RATE * gradient.copyToHost()[0]);
  }
}
