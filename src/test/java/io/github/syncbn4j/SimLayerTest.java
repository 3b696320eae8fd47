package io.github.syncbn4j;

import org.junit.jupiter.api.Tag;

/** The contract on simulated GPUs: the CUDA sources, under the real bindings of CUDA and NCCL. */
@Tag("sim")
class SimLayerTest extends LayerContract {
  @Override
  ReplicaGroup.Builder groupOf(int replicas) {
    int[] ordinals = new int[replicas];
    for (int i = 0; i < replicas; i++) {
      ordinals[i] = i;
    }
    return ReplicaGroup.builder().gpus(ordinals);
  }
}
