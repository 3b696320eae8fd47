package io.github.syncbn4j.faults;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.sim.SimNode;
import java.util.List;
import org.bytedeco.cuda.cudart.CUgraph_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Memory, streams and GPUs that are not what the caller takes them for: refused before anything is
 * begun, with what the runtime says of them.
 */
@Tag("sim")
class WrongUseTest {
  private ReplicaGroup group;
  private Replica replica;

  @BeforeEach
  void open() {
    group = ReplicaGroup.gpus(0, 1);
    replica = group.replica(1);
  }

  /** Nothing was begun: the group works. */
  @AfterEach
  void close() {
    try (ReplicaGroup open = group) {
      assertThat(open.failure()).isEmpty();
      DeviceTensor tensor = replica.allocate(DType.FLOAT32, 1);
      tensor.copyFromHost(1f);
      assertThat(tensor.copyToHost()).containsExactly(1f);
    }
  }

  @Test
  void pageableMemory_isNotAGpus() {
    try (FloatPointer host = new FloatPointer(4)) {
      assertThatThrownBy(() -> replica.wrap(host, DType.FLOAT32, 4))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage(
              "address 0x%x is not memory of gpu:1: cudaPointerGetAttributes says cudaMemoryTypeUnregistered",
              host.address());
    }
  }

  @Test
  void pinnedMemory_isNotAGpus() {
    Pointer host = new Address(0);
    assertThat(cudart.cudaHostAlloc(host, 16, cudart.cudaHostAllocDefault)).isZero();
    assertThatThrownBy(() -> replica.wrap(host.address() + 4, DType.FLOAT32, 3))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(
            "address 0x%x is not memory of gpu:1: cudaPointerGetAttributes says cudaMemoryTypeHost",
            host.address() + 4);
    assertThat(cudart.cudaFreeHost(host)).isZero();
  }

  @Test
  void memoryOfAnotherGpu() {
    long address = group.replica(0).allocate(DType.FLOAT32, 4).address();
    assertThatThrownBy(() -> replica.wrap(address, DType.FLOAT32, 4))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(
            "address 0x%x is not memory of gpu:1: cudaPointerGetAttributes says gpu:0", address);
  }

  @Test
  void tensorOfAnotherGpu() {
    DeviceTensor other = group.replica(0).allocate(DType.FLOAT32, 2, 3);
    DeviceTensor mine = replica.allocate(DType.FLOAT32, 2, 3);
    try (SyncBatchNormalization layer = SyncBatchNormalization.builder(group, 3).build()) {
      assertThatThrownBy(() -> layer.infer(replica, other, mine))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage("x is on gpu:0, the replica is rank 1 on gpu:1");
    }
  }

  @Test
  void streamOfAnotherGpu() {
    CUstream_st stream = new CUstream_st();
    assertThat(cudart.cudaStreamCreate(stream)).isZero(); // on the current device, 0
    assertThatThrownBy(() -> replica.useStream(stream.address()))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(
            "stream 0x%x is not of gpu:1: cudaStreamGetDevice says gpu:0", stream.address());
    assertThat(cudart.cudaStreamDestroy(stream)).isZero();
  }

  @Test
  void closingWithinACapture() {
    long memory = SimNode.live("allocations");
    CUstream_st stream = new CUstream_st();
    CUgraph_st graph = new CUgraph_st();
    assertThat(cudart.cudaSetDevice(1)).isZero();
    assertThat(cudart.cudaStreamCreateWithFlags(stream, cudart.cudaStreamNonBlocking)).isZero();
    assertThat(cudart.cudaSetDevice(0)).isZero();
    DeviceTensor tensor = replica.allocate(DType.FLOAT32, 4);
    SyncBatchNormalization layer = SyncBatchNormalization.builder(group, 3).build();
    replica.useStream(stream.address());
    assertThat(cudart.cudaStreamBeginCapture(stream, cudart.cudaStreamCaptureModeThreadLocal))
        .isZero();
    for (AutoCloseable closeable : List.of(tensor, layer, group)) {
      assertThatThrownBy(closeable::close)
          .isInstanceOf(IllegalStateException.class)
          .hasMessage(
              "nothing of rank 1 on gpu:1 can be closed while its stream is captured into a graph");
    }
    assertThat(cudart.cudaStreamEndCapture(stream, graph)).isZero();
    assertThat(cudart.cudaGraphDestroy(graph)).isZero();
    replica.useOwnStream();
    tensor.close();
    layer.close();
    assertThat(SimNode.live("allocations")).isEqualTo(memory);
    assertThat(cudart.cudaStreamDestroy(stream)).isZero();
  }

  @Test
  void gpusThatAreNotThere_orAreListedTwice() {
    assertThatThrownBy(() -> ReplicaGroup.gpus(0, 8))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("gpu:8 is not there: cudaGetDeviceCount says 8 (gpu:0 to gpu:7)");
    assertThatThrownBy(() -> ReplicaGroup.gpus(-1))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageStartingWith("gpu:-1 is not there");
    assertThatThrownBy(() -> ReplicaGroup.gpus(1, 2, 1))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("gpu:1 is listed twice: [1, 2, 1]");
  }
}
