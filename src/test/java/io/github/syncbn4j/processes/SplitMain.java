package io.github.syncbn4j.processes;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;

/**
 * A rank of a job of four, of which the even and the odd ranks make a group each; then the last one
 * does not come when all are to split once more.
 */
final class SplitMain {
  private static final Duration TIMEOUT = Duration.ofSeconds(3);
  private static final int LAST = 3;

  private SplitMain() {}

  public static void main(String... args) throws Exception {
    ReplicaGroup all = ReplicaGroup.builder().environment(System.getenv()).timeout(TIMEOUT).build();
    int rank = all.replicas().get(0).rank();
    try {
      all.split(-1, 0);
    } catch (IllegalArgumentException e) {
      System.out.println("refused: " + e.getMessage());
    }
    ReplicaGroup half = all.split(rank % 2, -rank);
    System.out.printf(
        "rank %d of %d, sum %.0f%n", half.replicas().get(0).rank(), half.size(), sum(half, rank));
    System.out.printf("all: %.0f%n", sum(all, rank));
    if (rank == LAST) {
      Thread.sleep(TIMEOUT.toMillis() * 2);
    } else {
      try {
        all.split(0, 0);
      } catch (CollectiveException e) {
        System.out.println("failed: " + e.getMessage());
      }
      if (rank % 2 == 0) {
        System.out.printf("again: sum %.0f%n", sum(half, rank));
      }
    }
    ReplicaGroup first = rank < 2 ? half : all;
    close(first);
    close(first == half ? all : half);
    System.out.println("closed");
  }

  /** The last rank has yet to hear of the failure. */
  private static void close(ReplicaGroup group) {
    try {
      group.close();
    } catch (CollectiveException e) {
      if (group.failure().isEmpty()) {
        throw e;
      }
    }
  }

  private static float sum(ReplicaGroup group, float value) {
    Replica replica = group.replicas().get(0);
    try (DeviceTensor tensor = replica.allocate(DType.FLOAT32, 1)) {
      tensor.copyFromHost(value);
      replica.allReduce(tensor);
      return tensor.copyToHost()[0];
    }
  }
}
