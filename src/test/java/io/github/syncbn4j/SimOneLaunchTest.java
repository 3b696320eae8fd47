package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.sim.SimNode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A replica that is alone takes one launch a direction, with the bits of two. */
@Tag("sim")
class SimOneLaunchTest {
  private static final int CHANNELS = 64;

  /** Rows with which a tile of channels has several blocks, that wait for each other. */
  private static final int ROWS = 200;

  private static final int STEPS = 3;
  private static final int CUDA_ERROR_UNKNOWN = 999;

  private final List<String> trace = Collections.synchronizedList(new ArrayList<>());

  /** Outputs, gradients and moving statistics after a few steps. */
  private List<float[]> train(int rows) {
    ReplicaGroup group = ReplicaGroup.builder().gpus(0).trace(trace::add).build();
    SyncBatchNormalization layer =
        SyncBatchNormalization.builder(group, CHANNELS).relu(true).renorm(true).build();
    try (Job job = new Job(group, layer, 1, 0.5, rows)) {
      for (int i = 0; i < STEPS; i++) {
        trace.clear();
        SimNode.resetCalls();
        job.step();
      }
      Replica replica = group.replica(0);
      return List.of(
          job.y.get(0).copyToHost(),
          job.dx.get(0).copyToHost(),
          layer.movingMean(replica).copyToHost(),
          layer.movingVariance(replica).copyToHost());
    }
  }

  private static void assertSameBits(List<float[]> one, List<float[]> other) {
    for (int i = 0; i < one.size(); i++) {
      assertThat(Arrays.equals(one.get(i), other.get(i))).as("tensor %d", i).isTrue();
    }
  }

  @Test
  void oneLaunch_isTraced_andHasTheBitsOfTwo() {
    List<float[]> one = train(ROWS);
    assertThat(SimNode.calls("cudaLaunchKernelExC")).isEqualTo(2);
    assertThat(trace).hasSize(2);
    assertThat(trace.get(0)).matches(".*kernel forward, .* [1-9]\\d* bytes on the chip");
    assertThat(trace.get(1)).matches(".*kernel backward, .* [1-9]\\d* bytes on the chip");
    System.setProperty("syncbn.one_launch", "false");
    try {
      assertSameBits(train(ROWS), one);
      assertThat(SimNode.calls("cudaLaunchKernelExC")).isEqualTo(4);
    } finally {
      System.clearProperty("syncbn.one_launch");
    }
  }

  @Test
  void moreBlocksThanTheDeviceHolds_takeTwoLaunches() {
    train(2 * ROWS);
    assertThat(trace)
        .extracting(line -> line.replaceAll(".*kernel (\\w+),.*", "$1"))
        .containsExactly("stats", "normalize", "backward_reduce", "backward_input");
  }

  /**
   * So many channels that a tile has one block, and so many rows that shared memory must be asked
   * for.
   */
  @ParameterizedTest
  @CsvSource({
    "cudaGetDevice, 2",
    "cudaDeviceGetAttribute, 1",
    "cudaDeviceGetAttribute, 2",
    "cudaFuncSetAttribute, 1",
    "cudaLaunchKernelExC, 1",
    "kernel, 1"
  })
  void callThatFails_isTyped_andChangesNoState(String function, int call) {
    int channels = 4256;
    ReplicaGroup group = ReplicaGroup.builder().gpus(0).build();
    try {
      SyncBatchNormalization layer = SyncBatchNormalization.builder(group, channels).build();
      Job job = new Job(group, layer, 1, 0.5, 672);
      float[] mean = layer.movingMean(group.replica(0)).copyToHost();
      SimNode.fail(function, call, CUDA_ERROR_UNKNOWN);
      assertThatThrownBy(
              () -> {
                layer.forward(group.replica(0), job.xTensors.get(0), job.y.get(0), true);
                group.synchronize();
              })
          .isInstanceOf(DeviceException.class)
          .hasMessageContaining("gpu:0");
      assertThat(SimNode.calls(function)).isPositive();
      if (!function.equals("kernel")) {
        assertThat(layer.movingMean(group.replica(0)).copyToHost()).isEqualTo(mean);
      }
    } finally {
      SimNode.fail(function, 0, 0);
      SimNode.revive(0);
      catchThrowable(group::close);
    }
    try (ReplicaGroup next = ReplicaGroup.builder().gpus(0).build();
        Job job =
            new Job(next, SyncBatchNormalization.builder(next, CHANNELS).build(), 1, 0.5, ROWS)) {
      job.step();
    }
  }
}
