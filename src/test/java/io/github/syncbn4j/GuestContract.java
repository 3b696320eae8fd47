package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.gpu.Figure;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.bytedeco.cuda.cudart.CUevent_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.FloatPointer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * The library as a guest in a program that has a current device, streams and memory of its own.
 * Needs nothing but CUDA itself to look: what the simulated node alone can count is in SimNodeTest.
 */
@Timeout(120)
abstract class GuestContract implements Devices {
  private static final int CHANNELS = 24;
  private static final int ROWS = 50;
  private static final long MATRIX_BYTES = (long) ROWS * CHANNELS * Float.BYTES;

  private Job job(int... rows) {
    ReplicaGroup group = group(rows.length);
    return new Job(group, SyncBatchNormalization.builder(group, CHANNELS).build(), 1, 0.5, rows);
  }

  // -----------------------------------------------------------------------------------------------
  // devices

  @Tag("several")
  @Test
  void callersDevice_isRestored_alsoByCallsThatFail() throws Exception {
    try (Job job = job(6, 6)) {
      for (int current = 0; current < 2; current++) {
        Cuda.setDevice(current);
        job.step();
        assertThat(Cuda.device()).isEqualTo(current);
        Replica other = job.group.replica(1 - current);
        assertThatThrownBy(() -> other.allocate(DType.FLOAT32, 1L << 48))
            .isInstanceOf(DeviceException.class);
        assertThat(Cuda.device()).isEqualTo(current);
      }
      job.onThreads(
          replica -> {
            Cuda.setDevice(1 - replica.rank());
            int rank = replica.rank();
            job.layer.forward(replica, job.xTensors.get(rank), job.y.get(rank), true).close();
            replica.synchronize();
            assertThat(Cuda.device()).isEqualTo(1 - rank);
          });
    } finally {
      Cuda.setDevice(0);
    }
  }

  @Tag("several")
  @Test
  void allGpusOfTheNode_byOneThreadOrAThreadEach_giveTheSameBits() throws Exception {
    int gpus = Math.max(2, Math.min(8, CudaRuntime.deviceCount()));
    int[] rows = new int[gpus];
    for (int rank = 0; rank < gpus; rank++) {
      rows[rank] = 5 * rank;
    }
    try (Job one = job(rows);
        Job each = job(rows)) {
      for (int step = 0; step < 3; step++) {
        one.step();
        each.stepByThreads();
        assertThat(bits(each.results())).isEqualTo(bits(one.results()));
      }
      for (Replica replica : one.group.replicas()) {
        assertThat(bits(one.state(replica)))
            .as("state of %s", replica)
            .isEqualTo(bits(one.state(one.group.replica(0))));
      }
    }
  }

  // -----------------------------------------------------------------------------------------------
  // streams

  /** Keeps a stream busy for long, without any kernel. */
  private static final class Busy implements AutoCloseable {
    private static final int FILLS = 200;
    private final Cuda.Memory memory =
        new Cuda.Memory(Math.min(1 << 30, CurrentDevice.freeBytes() / 4));
    private final CUevent_st over = new CUevent_st();

    Busy() {
      assertThat(cudart.cudaEventCreate(over)).isEqualTo(cudart.cudaSuccess);
    }

    void on(Cuda.Stream stream) {
      for (int i = 0; i < FILLS; i++) {
        stream.fill(memory.address(), i, memory.bytes());
      }
      CUstream_st handle = new CUstream_st(new Address(stream.address()));
      assertThat(cudart.cudaEventRecord(over, handle)).isEqualTo(cudart.cudaSuccess);
    }

    boolean isStillOn() {
      return cudart.cudaEventQuery(over) == cudart.cudaErrorNotReady;
    }

    @Override
    public void close() {
      assertThat(cudart.cudaEventDestroy(over)).isEqualTo(cudart.cudaSuccess);
      memory.close();
    }
  }

  @Test
  void steps_comeInOrderWithWhatTheCallerEnqueues() {
    try (Job job = job(ROWS);
        Busy busy = new Busy();
        Cuda.Stream stream = new Cuda.Stream();
        Cuda.Memory dx = new Cuda.Memory(MATRIX_BYTES)) {
      Replica replica = job.group.replica(0);
      job.step();
      List<Integer> wanted = bits(List.of(job.dx.get(0).copyToHost()));
      DeviceTensor x = job.xTensors.get(0);
      DeviceTensor late = replica.allocate(DType.FLOAT32, ROWS, CHANNELS);
      late.copyFromHost(new float[ROWS * CHANNELS]);
      replica.useStream(stream.address());
      busy.on(stream);
      stream.copy(late.address(), x.address(), MATRIX_BYTES);
      try (ForwardPass pass = job.layer.forward(replica, late, job.y.get(0), true)) {
        job.layer.backward(pass, job.dyTensors.get(0), late);
      }
      stream.copy(dx.address(), late.address(), MATRIX_BYTES);
      stream.fill(late.address(), 0xff, MATRIX_BYTES);
      stream.synchronize();
      DeviceTensor got = replica.wrap(dx.address(), DType.FLOAT32, ROWS, CHANNELS);
      assertThat(bits(List.of(got.copyToHost()))).isEqualTo(wanted);
      replica.useOwnStream();
      replica.synchronize();
    }
  }

  @Test
  void steps_onlyEnqueue_andTakeNoMemory() {
    try (Job job = job(ROWS);
        Busy busy = new Busy();
        Cuda.Stream stream = new Cuda.Stream()) {
      Replica replica = job.group.replica(0);
      replica.useStream(stream.address());
      job.step();
      job.layer.infer(job.xTensors, job.y); // its kernel is loaded by its first use
      long before = CurrentDevice.usedBytes();
      busy.on(stream);
      long start = System.nanoTime();
      try (ForwardPass pass = job.layer.forward(job.xTensors, job.y, true)) {
        job.layer.backward(pass, job.dyTensors, job.dx);
      }
      job.layer.infer(job.xTensors, job.y);
      double microseconds = (System.nanoTime() - start) / 1e3;
      assertThat(busy.isStillOn()).as("no call waited for the device").isTrue();
      assertThat(CurrentDevice.usedBytes()).isEqualTo(before);
      Figure.of("enqueue_behind_busy_stream").with("microseconds", microseconds).print();
      job.group.synchronize();
      replica.useOwnStream();
      replica.synchronize();
    }
  }

  // ------------------------------------------------------------------------------------------------ memory

  @Test
  void callersMemory_isUsedWhereItIs() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    ReplicaGroup group = groupOf(1).trace(trace::add).build();
    try (Job job =
            new Job(group, SyncBatchNormalization.builder(group, CHANNELS).build(), 1, 0.5, ROWS);
        Cuda.Stream stream = new Cuda.Stream();
        Cuda.Memory memory = new Cuda.Memory(4 * MATRIX_BYTES)) {
      Replica replica = group.replica(0);
      try (ForwardPass pass = job.layer.forward(replica, job.xTensors.get(0), job.y.get(0), true)) {
        job.layer.backward(pass, job.dyTensors.get(0), job.dx.get(0));
      }
      List<Integer> wanted = bits(List.of(job.y.get(0).copyToHost(), job.dx.get(0).copyToHost()));
      long used = CurrentDevice.usedBytes();
      List<DeviceTensor> wrapped = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        wrapped.add(
            replica.wrap(memory.address() + i * MATRIX_BYTES, DType.FLOAT32, ROWS, CHANNELS));
      }
      stream.copy(memory.address(), job.xTensors.get(0).address(), MATRIX_BYTES);
      stream.copy(memory.address() + MATRIX_BYTES, job.dyTensors.get(0).address(), MATRIX_BYTES);
      stream.synchronize();
      trace.clear();
      try (ForwardPass pass = job.layer.forward(replica, wrapped.get(0), wrapped.get(2), true)) {
        job.layer.backward(pass, wrapped.get(1), wrapped.get(3));
      }
      assertThat(trace).isNotEmpty().noneMatch(line -> line.contains("kernel copy"));
      assertThat(bits(List.of(wrapped.get(2).copyToHost(), wrapped.get(3).copyToHost())))
          .isEqualTo(wanted);
      wrapped.forEach(DeviceTensor::close);
      assertThat(CurrentDevice.usedBytes()).isEqualTo(used);
    }
  }

  @Test
  void hostPointers_areRefused() {
    try (Job job = job(ROWS);
        FloatPointer host = new FloatPointer(ROWS * CHANNELS)) {
      Replica replica = job.group.replica(0);
      assertThatThrownBy(() -> replica.wrap(host, DType.FLOAT32, ROWS, CHANNELS))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("0x%x".formatted(host.address()));
      assertThatThrownBy(() -> replica.wrap(host.address(), DType.FLOAT32, ROWS, CHANNELS))
          .isInstanceOf(IllegalArgumentException.class);
      job.step();
    }
  }

  @Tag("several")
  @Test
  void memoryAndStreamsOfAnotherGpu_areRefused() {
    try (Job job = job(6, 6)) {
      long elsewhere = job.xTensors.get(1).address();
      Replica replica = job.group.replica(0);
      assertThatThrownBy(() -> replica.wrap(elsewhere, DType.FLOAT32, 6, CHANNELS))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("0x%x".formatted(elsewhere));
      Cuda.setDevice(1);
      try (Cuda.Stream stream = new Cuda.Stream()) {
        assertThatThrownBy(() -> replica.useStream(stream.address()))
            .isInstanceOf(IllegalArgumentException.class);
      }
      job.step();
    } finally {
      Cuda.setDevice(0);
    }
  }

  @Test
  void outOfMemory_isATypedException_andTheGroupGoesOn() {
    try (Job job = job(ROWS)) {
      Replica replica = job.group.replica(0);
      long elements = CurrentDevice.freeBytes() / 2;
      assertThatThrownBy(() -> replica.allocate(DType.FLOAT32, elements))
          .isInstanceOf(DeviceException.class)
          .hasMessageContainingAll("gpu:0", elements * 4 + " bytes", "cudaErrorMemoryAllocation");
      job.step();
    }
  }

  /** A pass that has to pack its tensors needs memory of its own in the first step. */
  @Test
  void stepWithoutMemory_isATypedException_andTheGroupGoesOn() {
    try (Job job = job(ROWS)) {
      Replica replica = job.group.replica(0);
      long rows = CurrentDevice.freeBytes() / (CHANNELS * Float.BYTES) / 5;
      SyncBatchNormalization packing =
          SyncBatchNormalization.builder(job.group).axis(0, 2).build(4, -1, CHANNELS / 4);
      try (DeviceTensor x = replica.allocate(DType.FLOAT32, 4, rows, CHANNELS / 4);
          DeviceTensor y = replica.allocate(DType.FLOAT32, 4, rows, CHANNELS / 4)) {
        long left = CurrentDevice.freeBytes();
        try (Cuda.Memory rest = new Cuda.Memory(left - x.bytes() / 2)) {
          assertThat(rest.bytes()).isPositive();
          assertThatThrownBy(() -> packing.forward(replica, x, y, true))
              .isInstanceOf(DeviceException.class)
              .hasMessageContainingAll("gpu:0", "cudaMalloc", "cudaErrorMemoryAllocation");
        }
        job.step();
      }
    }
  }
}
