package io.github.syncbn4j;

import io.github.syncbn4j.state.Naming;

/**
 * Memory of the caller's in which a layer's state is, so that a framework's tensors are its
 * variables.
 */
@FunctionalInterface
public interface StateMemory {
  /** In place of a variable's name: the count of {@link SyncBatchNormalization#countedSteps}. */
  String COUNTED_STEPS = Naming.COUNTED_STEPS;

  /**
   * Called for each variable of each replica while a layer is built, which starts from the values
   * that are there and keeps this object as long as it lives. The memory must stay until then.
   *
   * @param name as in {@link SyncBatchNormalization#variables}, or {@link #COUNTED_STEPS}
   * @param bytes of {@code [channels]} elements of the parameters' dtype; 8 for the count, an int64
   * @return an address on the replica's device, aligned to the element
   */
  long address(Replica replica, String name, long bytes);
}
