package io.github.syncbn4j;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;

/** The contract on real GPUs, one a replica. */
@Tag("gpu")
class GpuLayerTest extends LayerContract {
  @Override
  ReplicaGroup.Builder groupOf(int replicas) {
    Assumptions.assumeTrue(
        replicas <= CudaRuntime.deviceCount(),
        () -> "needs " + replicas + " GPUs, this machine has " + CudaRuntime.deviceCount());
    int[] ordinals = new int[replicas];
    for (int i = 0; i < replicas; i++) {
      ordinals[i] = i;
    }
    return ReplicaGroup.builder().gpus(ordinals);
  }
}
