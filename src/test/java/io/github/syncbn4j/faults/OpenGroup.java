package io.github.syncbn4j.faults;

import io.github.syncbn4j.ReplicaGroup;
import java.util.Arrays;

/**
 * A process of its own that makes a group of the GPUs it is given, or of {@code cpu}, and says on
 * one line what came of it: {@code open}, or the exception and its message.
 */
final class OpenGroup {
  private OpenGroup() {}

  public static void main(String[] devices) {
    try (ReplicaGroup group = group(devices)) {
      System.out.println("open");
    } catch (RuntimeException e) {
      System.out.println(e.getClass().getSimpleName() + ": " + e.getMessage());
    }
  }

  private static ReplicaGroup group(String... devices) {
    return devices[0].equals("cpu")
        ? ReplicaGroup.cpus(1)
        : ReplicaGroup.gpus(Arrays.stream(devices).mapToInt(Integer::parseInt).toArray());
  }
}
