package io.github.syncbn4j;

import static io.github.syncbn4j.Refusals.assertIllegal;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What a group does with tensors that are not a layer's. */
@Timeout(60)
abstract class GroupCollectivesContract implements Devices {
  private static List<DeviceTensor> tensors(ReplicaGroup group, DType dtype) {
    List<DeviceTensor> tensors = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      DeviceTensor tensor = replica.allocate(dtype, 3, 2);
      int r = replica.rank();
      tensor.copyFromHost(r, 1 + r, 10.0 * r, -r, 0.5, 256 << r);
      tensors.add(tensor);
    }
    return tensors;
  }

  @Tag("several")
  @ParameterizedTest
  @EnumSource(names = "BOOL", mode = EnumSource.Mode.EXCLUDE)
  void allReduce_leavesTheSumOnEveryReplica(DType dtype) {
    try (ReplicaGroup group = group(3)) {
      List<DeviceTensor> tensors = tensors(group, dtype);
      group.allReduce(tensors);
      for (DeviceTensor tensor : tensors) {
        assertThat(tensor.copyToHostAsDoubles()).containsExactly(3, 6, 30, -3, 1.5, 1792);
      }
    }
  }

  @Tag("several")
  @ParameterizedTest
  @EnumSource(names = "BOOL", mode = EnumSource.Mode.EXCLUDE)
  void broadcast_leavesTheRootsValuesOnEveryReplica(DType dtype) {
    try (ReplicaGroup group = group(3)) {
      List<DeviceTensor> tensors = tensors(group, dtype);
      group.broadcast(tensors, 1);
      for (DeviceTensor tensor : tensors) {
        assertThat(tensor.copyToHostAsDoubles()).containsExactly(1, 2, 10, -1, 0.5, 512);
      }
    }
  }

  @Tag("several")
  @Test
  void sumOnTheHost_isRoundedOnce() {
    try (ReplicaGroup group = group(3)) {
      List<DeviceTensor> tensors = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        DeviceTensor tensor = replica.allocate(DType.FLOAT16, 1);
        tensor.copyFromHost(new double[] {1, 0x1p-11, 0x1p-24}[replica.rank()]);
        tensors.add(tensor);
      }
      group.allReduce(tensors);
      if (group.replica(0).deviceId().startsWith("cpu")) { // NCCL may round on the way
        assertThat(tensors.get(0).copyToHostAsDoubles()).containsExactly(1 + 0x1p-10);
      }
      assertThat(tensors.get(2).copyToHost()).isEqualTo(tensors.get(0).copyToHost());
    }
  }

  @Tag("several")
  @Test
  void threadAReplica_givesTheSame() throws Exception {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, SyncBatchNormalization.builder(group, 2).build(), 1, 0, 3, 3)) {
      List<DeviceTensor> tensors = tensors(group, DType.FLOAT32);
      job.onThreads(
          replica -> {
            replica.broadcast(tensors.get(replica.rank()), 1);
            replica.allReduce(tensors.get(replica.rank()));
          });
      for (DeviceTensor tensor : tensors) {
        assertThat(tensor.copyToHost()).containsExactly(2, 4, 20, -2, 1, 1024);
      }
    }
  }

  @Test
  void oneReplica_keepsItsValues() {
    try (ReplicaGroup group = group(1)) {
      List<DeviceTensor> tensors = tensors(group, DType.FLOAT32);
      group.allReduce(tensors);
      group.broadcast(tensors, 0);
      assertThat(tensors.get(0).copyToHost()).containsExactly(0, 1, 0, 0, 0.5f, 256);
    }
  }

  @Tag("several")
  @Test
  void tensorsThatDoNotFit_areRefused_andFailNothing() {
    try (ReplicaGroup group = group(2)) {
      List<DeviceTensor> good = tensors(group, DType.FLOAT32);
      DeviceTensor mine = good.get(0);
      Replica other = group.replica(1);
      assertIllegal(() -> group.allReduce(List.of(mine)), "1 tensors", "2 replicas");
      assertIllegal(
          () -> group.allReduce(List.of(mine, other.allocate(DType.FLOAT64, 3, 2))),
          "rank 1 is float64[3, 2]",
          "rank 0 is float32[3, 2]");
      assertIllegal(
          () -> group.allReduce(List.of(mine, other.allocate(DType.FLOAT32, 2, 3))), "[2, 3]");
      assertIllegal(() -> group.broadcast(good, 2), "rank 2 is not in the group: 0 to 1");
      assertIllegal(
          () -> other.allReduce(other.allocate(DType.BOOL, 2)), "bool tensor cannot be summed");
      assertIllegal(
          () ->
              other.allReduce(
                  other.wrapStrided(
                      good.get(1).address(), DType.FLOAT32, new long[] {2, 2}, new long[] {3, 1})),
          "without gaps");
      group.allReduce(good);
    }
  }

  @Tag("several")
  @Test
  void missingReplica_endsInTime() {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofMillis(500)).build();
    DeviceTensor tensor = tensors(group, DType.FLOAT32).get(0);
    assertThatThrownBy(
            () -> {
              group.replica(0).allReduce(tensor);
              group.replica(0).synchronize();
            })
        .isInstanceOf(CollectiveException.class);
    group.close();
  }
}
