package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.Nccl;
import io.github.syncbn4j.sim.SimNode;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * What only a simulated node can show: which calls are made, what leaks, and what happens when
 * calls fail.
 */
@Tag("sim")
@Timeout(120)
class SimNodeTest {
  private Map<String, Long> liveBefore;

  @BeforeEach
  void standInsServe() {
    assertThat(SimNode.isMapped())
        .as("the stand-ins, and no other CUDA or NCCL, are mapped")
        .isTrue();
    liveBefore = live();
  }

  @AfterEach
  void nothingLeaks() {
    assertThat(live()).isEqualTo(liveBefore);
  }

  private static Map<String, Long> live() {
    Map<String, Long> live = new TreeMap<>();
    for (String kind :
        List.of("memory", "streams", "events", "hostMemory", "communicators", "graphs")) {
      live.put(kind, SimNode.live(kind));
    }
    return live;
  }

  private static Job job(int... gpus) {
    ReplicaGroup group = ReplicaGroup.builder().gpus(gpus).timeout(Duration.ofSeconds(20)).build();
    int[] rows = new int[gpus.length];
    java.util.Arrays.fill(rows, 6);
    try {
      return new Job(group, SyncBatchNormalization.builder(group, 5).build(), 1, 0, rows);
    } catch (RuntimeException e) {
      group.close();
      throw e;
    }
  }

  @Test
  void eightGpus_areSeen() {
    assertThat(CudaRuntime.deviceCount()).isEqualTo(8);
    assertThat(CudaRuntime.deviceName(7)).isEqualTo("Simulated GPU");
    assertThat(CudaRuntime.kernelsBuildInfo()).contains("simulated");
    assertThat(Nccl.version()).isEqualTo("2.30.7");
    try (Job job = job(0, 1, 2, 3, 4, 5, 6, 7)) {
      job.step();
    }
  }

  @Test
  void chosenGpus_areUsed_andNoOthers() {
    try (Job job = job(0, 2)) {
      SimNode.resetCalls();
      job.step();
      assertThat(SimNode.launches().lines())
          .hasSize(8)
          .allMatch(line -> line.startsWith("0 ") || line.startsWith("2 "));
      assertThat(job.group.replicas())
          .extracting(r -> r.device().id())
          .containsExactly("gpu:0", "gpu:2");
    }
  }

  @Test
  void oneGpu_needsNoNccl() {
    SimNode.resetCalls();
    try (Job job = job(3)) {
      job.step();
    }
    assertThat(SimNode.calls("ncclGetVersion")).isZero();
    assertThat(SimNode.calls("ncclCommInitRankConfig")).isZero();
    assertThat(SimNode.calls("ncclAllReduce")).isZero();
  }

  @Test
  void steps_allocateNothingAndNeverWait() {
    try (Job job = job(0, 1)) {
      job.step();
      SimNode.resetCalls();
      for (int step = 0; step < 5; step++) {
        try (ForwardPass pass = job.layer.forward(job.xTensors, job.y, true)) {
          job.layer.backward(pass, job.dyTensors, job.dx);
        }
      }
      assertThat(SimNode.calls("cudaLaunchKernelExC")).isEqualTo(5 * 2 * 4);
      assertThat(SimNode.calls("ncclAllReduce")).isEqualTo(5 * 2 * 2);
      for (String call :
          List.of(
              "cudaMalloc",
              "cudaFree",
              "cudaHostAlloc",
              "cudaMemcpyAsync",
              "cudaMemsetAsync",
              "cudaStreamSynchronize",
              "cudaStreamQuery",
              "cudaDeviceSynchronize",
              "cudaEventSynchronize")) {
        assertThat(SimNode.calls(call)).as(call).isZero();
      }
    }
  }

  /** Masked, packed, with a residual and a ReLU: the memory for it is the pass's, and stays. */
  @Test
  void stepsWithEverything_allocateNothing_onceTheMemoryIsThere() {
    try (ReplicaGroup group = ReplicaGroup.gpus(0)) {
      SyncBatchNormalization layer =
          SyncBatchNormalization.builder(group).axis(1, 3).relu(true).build(-1, 3, 4, 5);
      Replica replica = group.replica(0);
      List<DeviceTensor> small = List.of(zeros(replica, 2), zeros(replica, 2), zeros(replica, 2));
      List<DeviceTensor> large = List.of(zeros(replica, 6), zeros(replica, 6), zeros(replica, 6));
      step(layer, small);
      step(layer, large);
      SimNode.resetCalls();
      for (List<DeviceTensor> tensors : List.of(small, large, small)) {
        step(layer, tensors);
      }
      assertThat(SimNode.calls("cudaLaunchKernelExC")).isPositive();
      for (String call : List.of("cudaMalloc", "cudaFree", "cudaStreamSynchronize")) {
        assertThat(SimNode.calls(call)).as(call).isZero();
      }
    }
  }

  private static DeviceTensor zeros(Replica replica, int examples) {
    DeviceTensor tensor = replica.allocate(DType.FLOAT32, examples, 3, 4, 5);
    tensor.copyFromHost(new float[examples * 60]);
    return tensor;
  }

  private static void step(SyncBatchNormalization layer, List<DeviceTensor> tensors) {
    DeviceTensor x = tensors.get(0);
    DeviceTensor y = tensors.get(1);
    DeviceTensor residual = tensors.get(2);
    Replica replica = x.replica();
    DeviceTensor mask = replica.wrap(x.address(), DType.BOOL, x.dimension(0), 3, 4); // all zeros
    try (ForwardPass pass = layer.forward(replica, x, y, residual, mask, true)) {
      layer.backward(pass, y, y, residual);
    }
  }

  @Test
  void callersDevice_isRestored() {
    try (Job job = job(1, 2)) {
      int[] device = new int[1];
      org.bytedeco.cuda.global.cudart.cudaSetDevice(5);
      job.step();
      org.bytedeco.cuda.global.cudart.cudaGetDevice(device);
      assertThat(device[0]).isEqualTo(5);
    } finally {
      org.bytedeco.cuda.global.cudart.cudaSetDevice(0);
    }
  }

  @Test
  void kernelThatCrashes_isADeviceException_andCloseReleasesWhatItCan() {
    Job job = job(0);
    SimNode.resetCalls();
    SimNode.fail("kernel", 1, 700); // cudaErrorIllegalAddress: the device reports it from then on
    try {
      assertThatThrownBy(job::step)
          .isInstanceOf(DeviceException.class)
          .hasMessageContaining("cudaErrorIllegalAddress");
      try {
        job.close();
      } catch (DeviceException e) {
        assertThat(e).hasMessageContaining("cudaErrorIllegalAddress");
      }
      assertThat(SimNode.calls("cudaStreamDestroy")).isOne();
      assertThat(SimNode.calls("cudaFreeHost")).isOne();
    } finally {
      SimNode.fail("kernel", 0, 0);
      SimNode.revive(0);
    }
    try (Job next = job(0, 1)) {
      next.step();
    }
  }

  @Test
  void outOfMemory_namesTheBytes_andTheGroupGoesOn() {
    try (Job job = job(0, 1)) {
      long tooMuch = 1L << 50;
      assertThatThrownBy(() -> job.group.replica(1).allocate(DType.FLOAT32, tooMuch))
          .isInstanceOf(DeviceException.class)
          .hasMessageContaining("gpu:1")
          .hasMessageContaining((tooMuch * 4) + " bytes")
          .hasMessageContaining("cudaErrorMemoryAllocation");
      job.step();
    }
  }

  @Test
  void stalledGpu_endsInTheTimeout() {
    ReplicaGroup group = ReplicaGroup.builder().gpus(0, 1).timeout(Duration.ofMillis(400)).build();
    Job job = new Job(group, SyncBatchNormalization.builder(group, 5).build(), 1, 0, 6, 6);
    SimNode.stall(1, true);
    try {
      long start = System.nanoTime();
      assertThatThrownBy(job::step)
          .isInstanceOf(CollectiveException.class)
          .hasMessageContaining("within 0.400 s");
      assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofMillis(1400));
    } finally {
      SimNode.stall(1, false);
      group.close();
    }
  }
}
