package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static io.github.syncbn4j.Refusals.assertIllegal;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.bytedeco.javacpp.FloatPointer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the layer and its group refuse, and what they make of a step that fails. */
@Timeout(120)
abstract class LayerErrorsContract implements Devices {
  // ------------------------------------------------------------------------------------------------------- errors

  @Tag("several")
  @Test
  void tensorsThatDoNotFit_areRefusedWithTheirValues() {
    try (Job job = Job.of(this, 10, 0, 5, 4, 4);
        ReplicaGroup cpu = ReplicaGroup.cpus(1)) {
      Replica replica = job.group.replica(0);
      DeviceTensor good = job.xTensors.get(0);
      assertRefused(job, replica.allocate(DType.FLOAT16, 4, 5), "float32", "float16");
      assertRefused(job, replica.allocate(DType.FLOAT32), "rank 1 or more", "not 0");
      assertRefused(job, replica.allocate(DType.FLOAT32, 5, 4), "4 channels", "the layer has 5");
      assertThatThrownBy(
              () ->
                  forward(
                      job,
                      good,
                      replica.wrapStrided(
                          good.address(), DType.FLOAT32, new long[] {4, 5}, new long[] {0, 1})))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("y cannot be written: elements share memory")
          .hasMessageContaining("strides [0, 1]");
      if (!replica.device().memorySpace().equals("host")) {
        assertRefused(job, cpu.replica(0).allocate(DType.FLOAT32, 4, 5), "x is on cpu:0", "rank 0");
        assertRefused(job, job.group.replica(1).allocate(DType.FLOAT32, 4, 5), "x is on", "rank 0");
      }
      DeviceTensor closed = replica.allocate(DType.FLOAT32, 4, 5);
      closed.close();
      closed.close();
      assertThatThrownBy(() -> forward(job, closed, job.y.get(0)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      assertThatThrownBy(() -> forward(job, good, replica.allocate(DType.FLOAT32, 3, 5)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("[3, 5]")
          .hasMessageContaining("[4, 5]");
      assertThatThrownBy(() -> job.layer.forward(List.of(good), job.y, true))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("1 tensors")
          .hasMessageContaining("2 replicas");
      DeviceTensor strange =
          cpu.replica(0).wrap(good.address(), DType.FLOAT32, 4, 5); // on a GPU: not even there
      assertThatThrownBy(() -> forward(job, strange, job.y.get(0)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("x is");
      assertThatThrownBy(() -> job.layer.forward(cpu.replica(0), good, good, true))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("another group");
      job.step(); // nothing of this failed the group
    }
  }

  private static void assertRefused(Job job, DeviceTensor x, String... texts) {
    assertThatThrownBy(() -> forward(job, x, job.y.get(0)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContainingAll(texts);
  }

  private static void forward(Job job, DeviceTensor x0, DeviceTensor y0) {
    job.layer.forward(List.of(x0, job.xTensors.get(1)), List.of(y0, job.y.get(1)), true).close();
  }

  @Test
  void options_areRefusedWithTheirValues() {
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      assertIllegal(() -> SyncBatchNormalization.builder(group, 0), "channels", "not 0");
      assertIllegal(() -> SyncBatchNormalization.builder(group, 1).epsilon(-1), "epsilon", "-1.0");
      assertIllegal(
          () -> SyncBatchNormalization.builder(group, 1).momentum(Double.NaN), "momentum", "NaN");
      assertIllegal(() -> replica.allocate(DType.FLOAT32, 2, -3), "-3", "[2, -3]");
      assertIllegal(() -> replica.allocate(DType.FLOAT32, 1L << 40, 1L << 40), "2^63");
      assertIllegal(() -> replica.allocate(DType.BOOL, 1L << 40, 1L << 40), "2^63");
      assertIllegal(() -> replica.wrap(0, DType.FLOAT32, 2, 2), "address 0");
      assertIllegal(() -> replica.wrap(0x1002, DType.FLOAT32, 2, 2), "0x1002", "not aligned");
      assertIllegal(() -> replica.allocate(DType.FLOAT32, 2).copyFromHost(1, 2, 3), "3 values");
      assertIllegal(() -> ReplicaGroup.builder().threads(0), "1 to 256", "not 0");
      assertIllegal(() -> ReplicaGroup.builder().timeout(Duration.ZERO), "PT0S");
    }
  }

  @Test
  void closedGroup_isRefused() {
    Job job = Job.of(this, 12, 0, 5, 4);
    DeviceTensor tensor = job.xTensors.get(0);
    job.close();
    job.close();
    assertThatThrownBy(job.group::check).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> job.group.replica(0).allocate(DType.FLOAT32, 1))
        .isInstanceOf(IllegalStateException.class)
        .hasMessage("the group is closed");
    assertThatThrownBy(tensor::copyToHost).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(job::step).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> SyncBatchNormalization.builder(job.group, 3).build())
        .isInstanceOf(IllegalStateException.class);
  }

  // ----------------------------------------------------------------------------------------------------- failures

  @Test
  void closingAVariable_leavesItToTheLayer() {
    try (Job job = Job.of(this, 13, 0, 3, 8)) {
      Replica replica = job.group.replica(0);
      job.step();
      List<Integer> y = bits(List.of(job.y.get(0).copyToHost()));
      try (DeviceTensor gamma = job.layer.gamma(replica)) {
        assertThat(gamma.copyToHost()).containsOnly(1f);
      }
      job.step();
      assertThat(bits(List.of(job.y.get(0).copyToHost()))).isEqualTo(y);
      DeviceTensor mean = job.layer.movingMean(replica);
      job.layer.close();
      assertThatThrownBy(mean::copyToHost)
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      assertThatThrownBy(job::step)
          .isInstanceOf(IllegalStateException.class)
          .hasMessage("the layer is closed");
    }
  }

  @Test
  void pointerThatIsTooShort_isRefused() {
    try (ReplicaGroup group = group(1);
        FloatPointer pointer = new FloatPointer(4)) {
      assertIllegal(
          () -> group.replica(0).wrap(pointer, DType.FLOAT32, 3, 2), "16 bytes", "needs 24");
    }
  }

  @Test
  void stepThatEndsEarly_failsTheGroup() {
    ReplicaGroup group =
        groupOf(1)
            .trace(
                line -> {
                  throw new IllegalStateException("no trace");
                })
            .build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4);
    assertThatThrownBy(job::step).isInstanceOf(IllegalStateException.class).hasMessage("no trace");
    assertThatThrownBy(job::step)
        .isInstanceOf(CollectiveException.class)
        .hasMessage("the group has failed: no trace");
    group.close();
  }

  @Tag("several")
  @Test
  void closingTheLayer_afterAReplicaIsLost_endsInTime() {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofMillis(500)).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    job.step(); // the ranks are connected: a later call need not wait on the host
    try {
      job.layer.forward(group.replica(0), job.xTensors.get(0), job.y.get(0), true);
    } catch (CollectiveException e) {
      assertThat(e).hasMessageContaining("did not come"); // where the host waits
    }
    long start = System.nanoTime();
    job.layer.close();
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofMillis(1500));
    assertThat(group.failure()).isPresent();
    try {
      group.close();
    } catch (CollectiveException e) {
      assertThat(e).isSameAs(group.failure().get());
    }
  }

  @Tag("several")
  @Test
  void missingReplica_endsTheOthersInTime_andANewGroupWorks() throws Exception {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofMillis(500)).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    List<float[]> before = job.state(group.replica(0));
    long start = System.nanoTime();
    assertThatThrownBy(
            () -> {
              job.layer.forward(group.replica(0), job.xTensors.get(0), job.y.get(0), true);
              group.replica(0).synchronize();
            })
        .isInstanceOf(CollectiveException.class);
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofMillis(1500));
    assertThat(group.failure()).isPresent();
    assertThatThrownBy(job::step)
        .isInstanceOf(CollectiveException.class)
        .hasMessageStartingWith("the group has failed");
    for (Replica replica : group.replicas()) {
      assertThat(bits(job.state(replica))).as("state of %s", replica).isEqualTo(bits(before));
    }
    job.close();
    try (Job next = Job.of(this, 2, 0, 3, 4, 4)) {
      next.step();
    }
  }

  @Tag("several")
  @Test
  void replicasAtDifferentLayers_areTold_andChangeNoState() throws Exception {
    ReplicaGroup group = group(2);
    SyncBatchNormalization other = SyncBatchNormalization.builder(group, 3).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    CountDownLatch enqueued = new CountDownLatch(2);
    assertThatThrownBy(
            () ->
                job.onThreads(
                    replica -> {
                      int rank = replica.rank();
                      try {
                        (rank == 0 ? job.layer : other)
                            .forward(replica, job.xTensors.get(rank), job.y.get(rank), true);
                      } finally {
                        enqueued.countDown();
                        enqueued.await();
                      }
                      replica.synchronize();
                    }))
        .isInstanceOf(CollectiveException.class)
        .hasMessageContaining("layer 1, forward of step 0")
        .hasMessageContaining("layer 0, forward of step 0");
    assertThat(group.failure()).isPresent();
    for (Replica replica : group.replicas()) {
      assertThat(job.layer.movingMean(replica).copyToHost()).containsOnly(0f);
      assertThat(job.layer.movingVariance(replica).copyToHost()).containsOnly(1f);
      assertThat(other.movingMean(replica).copyToHost()).containsOnly(0f);
    }
    group.close();
  }

  @Tag("several")
  @Test
  void replicasWithDifferentChannels_failInTime() {
    ReplicaGroup group = groupOf(2).timeout(Duration.ofSeconds(1)).build();
    SyncBatchNormalization other = SyncBatchNormalization.builder(group, 4).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 3).build(), 1, 0, 4, 4);
    DeviceTensor wide = group.replica(1).allocate(DType.FLOAT32, 3, 4);
    wide.copyFromHost(new float[12]);
    assertThatThrownBy(
            () ->
                job.onThreads(
                    replica -> {
                      if (replica.rank() == 0) {
                        job.layer.forward(replica, job.xTensors.get(0), job.y.get(0), true);
                      } else {
                        other.forward(replica, wide, wide, true);
                      }
                      replica.synchronize();
                    }))
        .isInstanceOf(CollectiveException.class);
    group.close();
  }
}
