package io.github.syncbn4j.gpu;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.HalfFloats;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import io.github.syncbn4j.device.cuda.OneRank;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.ShortPointer;

/**
 * Times each kernel, and each call of the layer, against a copy within the device, on GPU 0: for
 * the twelve shapes that ResNet-50 normalizes. Prints a figure for each, and a table of them all;
 * ends with status 1 where a result is not what float64 says, and prints no time of it.
 *
 * <p>Arguments: images, as in {@code 16,32/BFLOAT16}, with 32 in one dtype only; samples; calls
 * that make a sample where calls are timed; by what the pictures' sides are divided, 1 for
 * ResNet's; bytes that the tensors have to have together, so that the L2 cache does not hold them,
 * or -1 for four times the cache.
 */
final class KernelTimes {
  /** Channels, side of the picture, and how many of ResNet-50's 53 layers have it. */
  private record Shape(int channels, int side, int layers) {}

  private static final List<Shape> RESNET50 =
      List.of(
          new Shape(64, 112, 1),
          new Shape(64, 56, 6),
          new Shape(128, 56, 1),
          new Shape(256, 56, 4),
          new Shape(128, 28, 7),
          new Shape(256, 28, 1),
          new Shape(512, 28, 5),
          new Shape(256, 14, 11),
          new Shape(512, 14, 1),
          new Shape(1024, 14, 7),
          new Shape(512, 7, 5),
          new Shape(2048, 7, 4));

  private static final List<DType> DTYPES = List.of(DType.FLOAT32, DType.BFLOAT16, DType.FLOAT16);

  /** Random values from which all tensors are filled. */
  private static final int SOURCE_ELEMENTS = 1 << 22;

  private static final int CACHES = 4;
  private static final int SMALLEST_SIDE = 2;

  /** How many images, and in which dtype; null: in all of them. */
  private record Batch(int images, DType dtype) {
    static Batch of(String text) {
      String[] parts = text.split("/");
      return new Batch(
          Integer.parseInt(parts[0]), parts.length == 1 ? null : DType.valueOf(parts[1]));
    }
  }

  private final List<Batch> batches;
  private final int samples;
  private final int calls;
  private final int divisor;
  private final long rotated;

  /** Of a layout, dtype and number of images: for each pass, what all its layers take together. */
  private final Map<String, Map<String, double[]>> totals = new LinkedHashMap<>();

  private boolean wrong;

  private KernelTimes(List<Batch> batches, int samples, int calls, int divisor, long rotated) {
    this.batches = batches;
    this.samples = samples;
    this.calls = calls;
    this.divisor = divisor;
    this.rotated = rotated;
  }

  public static void main(String[] args) {
    CudaRuntime.ensureAvailable();
    long rotated = Long.parseLong(args[4]);
    if (rotated < 0) {
      rotated = (long) CACHES * Cuda.attribute(cudart.cudaDevAttrL2CacheSize);
    }
    KernelTimes times =
        new KernelTimes(
            Arrays.stream(args[0].split(",")).map(Batch::of).toList(),
            Integer.parseInt(args[1]),
            Integer.parseInt(args[2]),
            Integer.parseInt(args[3]),
            rotated);
    times.run();
    if (!times.wrong) {
      times.printSummary();
    }
    System.exit(times.wrong ? 1 : 0);
  }

  private void run() {
    try (OneRank rank = new OneRank(0, Duration.ofMinutes(1));
        ReplicaGroup group = ReplicaGroup.gpus(0)) {
      Device device = rank.device();
      Replica replica = group.replica(0);
      Cuda.Stream stream = new Cuda.Stream();
      device.useStream(stream.address());
      replica.useStream(stream.address());
      stream.raiseClocks();
      for (DType dtype : DTYPES) {
        try (Cuda.Memory source = random(device, dtype, SOURCE_ELEMENTS)) {
          for (boolean channelsLast : new boolean[] {true, false}) {
            for (Batch batch : batches) {
              if (batch.dtype != null && batch.dtype != dtype) {
                continue;
              }
              for (Shape shape : RESNET50) {
                run(rank, replica, stream, dtype, channelsLast, batch.images, shape, source);
              }
            }
          }
        }
      }
      replica.useOwnStream();
      device.useOwnStream();
      stream.synchronize();
      stream.close();
    }
  }

  /** Random values on the device, of mean 0.5 and variance 1. */
  static Cuda.Memory random(Device device, DType dtype, int elements) {
    Random random = new Random(1);
    Cuda.Memory memory = new Cuda.Memory((long) elements * dtype.bytes());
    float[] values = new float[elements];
    short[] halves = new short[elements];
    for (int i = 0; i < elements; i++) {
      values[i] = (float) (random.nextGaussian() + 0.5);
      halves[i] =
          dtype == DType.FLOAT16
              ? HalfFloats.toFloat16(values[i])
              : HalfFloats.toBfloat16(values[i]);
    }
    try (Pointer host =
        dtype == DType.FLOAT32 ? new FloatPointer(values) : new ShortPointer(halves)) {
      device.copyFromHost(memory.address(), host, memory.bytes());
    }
    return memory;
  }

  private void run(
      OneRank rank,
      Replica replica,
      Cuda.Stream stream,
      DType dtype,
      boolean channelsLast,
      int count,
      Shape shape,
      Cuda.Memory source) {
    int side = divisor == 1 ? shape.side : Math.max(SMALLEST_SIDE, shape.side / divisor);
    TimedCase.Tensors tensors =
        new TimedCase.Tensors(dtype, channelsLast, count, shape.channels, side);
    long bytes = tensors.bytes();
    int sets = (int) Math.max(2, (rotated + bytes - 1) / bytes);
    TimedCase.Effort effort = new TimedCase.Effort(sets, samples, calls);
    try (TimedCase timed = new TimedCase(rank, replica, stream, tensors, effort, source)) {
      Map<String, TimedCase.Result> results = timed.run();
      double copy = results.get("copy").times().median();
      Map<String, double[]> total =
          totals.computeIfAbsent(
              "%-14s %-8s %3d images".formatted(layout(tensors), dtype, count),
              k -> new LinkedHashMap<>());
      results.forEach(
          (pass, result) -> {
            if (!result.isRight()) {
              wrong = true;
              System.out.println(
                  "WRONG %s %s: an error of %.3g, %.3g is allowed"
                      .formatted(tensors, pass, result.error(), result.allowed()));
              return;
            }
            print(tensors, shape.layers, sets, pass, result, copy);
            double[] sum = total.computeIfAbsent(pass, k -> new double[3]);
            sum[0] += shape.layers * result.times().median();
            sum[1] += shape.layers * copy;
            sum[2] += shape.layers * result.times().hostMedian();
          });
    }
  }

  private static String layout(TimedCase.Tensors tensors) {
    return tensors.channelsLast() ? "channels_last" : "channels_first";
  }

  private void print(
      TimedCase.Tensors tensors,
      int layers,
      int sets,
      String pass,
      TimedCase.Result result,
      double copy) {
    Times times = result.times();
    int side = tensors.side();
    boolean called = pass.endsWith("_call");
    Figure.of("time")
        .with("suite", "resnet50")
        .with("layer", "%dx%dx%d".formatted(tensors.channels(), side, side))
        .with("layers", layers)
        .with("shape", List.of(tensors.images(), tensors.channels(), side, side))
        .with("layout", layout(tensors))
        .with("dtype", tensors.dtype())
        .with("pass", pass.replaceFirst("^(nccl|separate)_", "").replace("_call", ""))
        .with("measured", called ? "calls" : "graph")
        .with("replicas", 1)
        .with("threads", 1)
        .with("device", "gpu")
        .with("cold", rotated > 0)
        .with("impl", implementation(pass))
        .with("bytes_on_chip", result.bytesOnChip())
        .with("median_us", times.median())
        .with("p10_us", times.p10())
        .with("p90_us", times.p90())
        .with("samples", times.samples())
        .with("sets", sets)
        .with("copies", times.median() / copy)
        .with("copy_gb_per_s", 2 * tensors.bytes() / copy / 1e3)
        .with("host_us", called ? times.hostMedian() : null)
        .with("max_error", result.error())
        .print();
  }

  private static String implementation(String pass) {
    if (pass.equals("copy")) {
      return pass;
    }
    return pass.startsWith("nccl_")
        ? "syncbn4j_nccl"
        : pass.startsWith("separate_") ? "syncbn4j_separate" : "syncbn4j";
  }

  /** For ResNet-50's 53 layers together: copies for each pass, and milliseconds where called. */
  private void printSummary() {
    System.out.println();
    totals.forEach(
        (key, passes) -> {
          List<String> copies = new ArrayList<>();
          List<String> calls = new ArrayList<>();
          passes.forEach(
              (pass, sums) -> {
                if (pass.endsWith("_call")) {
                  calls.add("%s %.3f ms (host %.3f)".formatted(pass, sums[0] / 1e3, sums[2] / 1e3));
                } else if (pass.equals("copy")) {
                  copies.add("copy %.3f ms".formatted(sums[0] / 1e3));
                } else {
                  copies.add("%s %.2f".formatted(pass, sums[0] / sums[1]));
                }
              });
          System.out.println("# " + key + ": " + String.join(", ", copies));
          System.out.println("#   " + String.join(", ", calls));
        });
  }
}
