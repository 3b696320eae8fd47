package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import org.junit.jupiter.api.Test;

class CpuLayerTest extends LayerContract implements Devices.Cpu {
  @Test
  void anyNumberOfThreads_givesTheSameBits() {
    List<Integer> first = null;
    for (int threads : new int[] {1, 2, 4}) {
      ReplicaGroup group = ReplicaGroup.builder().cpus(2).threads(threads).build();
      try (Job job =
          new Job(group, SyncBatchNormalization.builder(group, 64).build(), 1, 100, 4000, 1500)) {
        job.step();
        List<Integer> bits = bits(job.results());
        if (first == null) {
          first = bits;
        }
        assertThat(bits).as("%d threads", threads).isEqualTo(first);
      }
    }
  }

  @Test
  void replicaCounts_areRefusedWithTheirValues() {
    assertThatThrownBy(() -> ReplicaGroup.cpus(0))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("CPU replicas must be 1 to 1024, not 0");
    assertThatThrownBy(() -> ReplicaGroup.builder().build())
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("exactly one");
  }

  @Test
  void group_saysWhichReplicasItHas() {
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      assertThat(group).hasToString("group of 2: rank 0 on cpu:0, rank 1 on cpu:1");
    }
  }
}
