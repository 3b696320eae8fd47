package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.gpu.Figure;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Many steps: neither the device's memory nor the host's grows. The system property {@code
 * syncbn.steps} says how many.
 */
@Timeout(500)
abstract class LongRunContract implements Devices {
  private static final int CHANNELS = 32;
  private static final int STEPS_UNDER_WAY = 50;

  /** Bytes a step that would be a leak, in what is counted exactly. */
  private static final long LEAK = 64;

  /** What the JVM itself may come to use meanwhile: its heap is not all resident at first. */
  private static final long MOST_RESIDENT = 32 << 20;

  private static final long MOST_HEAP = 1 << 20;

  /** Steps, unless the property says otherwise. */
  abstract int defaultSteps();

  /** All in bytes; after everything has run, and what is garbage is collected. */
  private record Memory(long device, long resident, long javacpp, long heap) {
    static Memory now() throws IOException {
      System.gc();
      System.gc();
      Runtime runtime = Runtime.getRuntime();
      return new Memory(
          CurrentDevice.usedBytes(),
          residentNow(),
          Pointer.totalBytes(),
          runtime.totalMemory() - runtime.freeMemory());
    }

    private static long residentNow() throws IOException {
      return Files.readAllLines(Path.of("/proc/self/status")).stream()
              .filter(line -> line.startsWith("VmRSS:"))
              .mapToLong(line -> Long.parseLong(line.replaceAll("[^0-9]", "")))
              .findFirst()
              .orElseThrow()
          * 1024;
    }
  }

  @Test
  void manySteps_growNoMemory() throws IOException {
    int steps = Integer.getInteger("syncbn.steps", defaultSteps());
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      SyncBatchNormalization last = SyncBatchNormalization.builder(group).build(-1, 6, 5, CHANNELS);
      SyncBatchNormalization first =
          SyncBatchNormalization.builder(group).axis(1).relu(true).build(-1, CHANNELS, 6, 5);
      List<DeviceTensor> ofLast = tensors(replica, 8, 6, 5, CHANNELS);
      List<DeviceTensor> ofFirst = tensors(replica, 8, CHANNELS, 6, 5);
      take(group, steps / 5, last, ofLast, first, ofFirst);
      Memory before = Memory.now();
      long start = System.nanoTime();
      take(group, steps, last, ofLast, first, ofFirst);
      double seconds = (System.nanoTime() - start) / 1e9;
      Memory after = Memory.now();
      Figure.of("long_run")
          .with("steps", steps)
          .with("seconds", seconds)
          .with("device_bytes", List.of(before.device, after.device))
          .with("resident_bytes", List.of(before.resident, after.resident))
          .with("javacpp_bytes", List.of(before.javacpp, after.javacpp))
          .with("java_heap_bytes", List.of(before.heap, after.heap))
          .print();
      assertThat(after.device - before.device).as("device memory").isLessThan(LEAK * steps);
      assertThat(after.javacpp - before.javacpp).as("JavaCPP's memory").isLessThan(LEAK * steps);
      assertThat(after.heap - before.heap).as("Java's heap").isLessThan(MOST_HEAP);
      assertThat(after.resident - before.resident).as("resident memory").isLessThan(MOST_RESIDENT);
      assertThat(last.countedSteps()).isEqualTo(steps + steps / 5);
    }
  }

  private static List<DeviceTensor> tensors(Replica replica, long... shape) {
    List<DeviceTensor> tensors =
        java.util.stream.Stream.generate(() -> replica.allocate(DType.FLOAT32, shape))
            .limit(4)
            .toList();
    float[] values = new float[(int) tensors.get(0).elements()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) Math.sin(i);
    }
    tensors.forEach(tensor -> tensor.copyFromHost(Arrays.copyOf(values, values.length)));
    return tensors;
  }

  private static void take(
      ReplicaGroup group,
      int steps,
      SyncBatchNormalization last,
      List<DeviceTensor> ofLast,
      SyncBatchNormalization first,
      List<DeviceTensor> ofFirst) {
    for (int step = 1; step <= steps; step++) {
      step(last, ofLast);
      step(first, ofFirst);
      if (step % STEPS_UNDER_WAY == 0 || step == steps) {
        group.synchronize();
      }
    }
  }

  private static void step(SyncBatchNormalization layer, List<DeviceTensor> tensors) {
    Replica replica = tensors.get(0).replica();
    try (ForwardPass pass = layer.forward(replica, tensors.get(0), tensors.get(1), true)) {
      layer.backward(pass, tensors.get(2), tensors.get(3));
    }
    layer.infer(replica, tensors.get(0), tensors.get(1));
  }
}
