package io.github.syncbn4j.faults;

import io.github.syncbn4j.ReplicaGroup;
import java.util.Arrays;

/**
 * A process of its own that makes a group of the GPUs it is given and says on one line what came of
 * it: {@code open}, or the exception and its message.
 */
final class OpenGroup {
  private OpenGroup() {}

  public static void main(String[] gpus) {
    int[] ordinals = Arrays.stream(gpus).mapToInt(Integer::parseInt).toArray();
    try (ReplicaGroup group = ReplicaGroup.gpus(ordinals)) {
      System.out.println("open");
    } catch (RuntimeException e) {
      System.out.println(e.getClass().getSimpleName() + ": " + e.getMessage());
    }
  }
}
