package io.github.syncbn4j.processes;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.time.Duration;
import java.util.Arrays;
import java.util.Random;

/**
 * A rank's training: one layer, as many steps as the first argument says, in milliseconds of
 * timeout as the second.
 */
final class RankMain {
  private static final int CHANNELS = 5;
  private static final int ROWS = 6;

  private RankMain() {}

  public static void main(String... args) {
    int steps = Integer.parseInt(args[0]);
    Duration timeout = Duration.ofMillis(Long.parseLong(args[1]));
    try (ReplicaGroup group =
            ReplicaGroup.builder().environment(System.getenv()).timeout(timeout).build();
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, CHANNELS)
                .config("{\"gamma_initializer\": \"random_normal\"}")
                .build()) {
      Replica replica = group.replicas().get(0);
      System.out.printf("rank %d of %d%n", replica.rank(), group.size());
      DeviceTensor x = replica.allocate(DType.FLOAT32, ROWS, CHANNELS);
      DeviceTensor y = replica.allocate(DType.FLOAT32, ROWS, CHANNELS);
      Random random = new Random(replica.rank());
      for (int step = 0; step < steps; step++) {
        float[] values = new float[ROWS * CHANNELS];
        for (int i = 0; i < values.length; i++) {
          values[i] = (float) random.nextGaussian();
        }
        x.copyFromHost(values);
        try (ForwardPass pass = layer.forward(replica, x, y, true)) {
          layer.backward(pass, y, y);
        }
        replica.synchronize();
        System.out.printf("step %d%n", step);
      }
      System.out.println("gamma " + Arrays.toString(layer.gamma(replica).copyToHost()));
      System.out.println("mean " + Arrays.toString(layer.movingMean(replica).copyToHost()));
    } catch (RuntimeException e) {
      System.out.println("failed: " + e.getClass().getSimpleName() + ": " + e.getMessage());
      System.exit(3);
    }
    System.out.println("closed");
  }
}
