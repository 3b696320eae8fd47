package io.github.syncbn4j.gpu;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.device.cuda.OneRank;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntConsumer;
import java.util.function.Supplier;
import java.util.stream.DoubleStream;
import java.util.stream.IntStream;

/**
 * The passes of one layer over several sets of tensors of one shape, timed one by one.
 *
 * <p>Each pass goes through all sets, so that none is in the cache when its turn comes again: as a
 * CUDA graph that holds a call for each set, which is the time on the device alone, and as calls
 * from Java. What the last timed run left for the last set is compared with float64 in three of the
 * channels.
 */
final class TimedCase implements AutoCloseable {
  /** What the tensors are: pictures, {@code side} high and wide. */
  record Tensors(DType dtype, boolean channelsLast, int images, int channels, int side) {
    long bytes() {
      return elementsOfChannel() * channels * dtype.bytes();
    }

    long elementsOfChannel() {
      return (long) images * side * side;
    }

    long[] shape() {
      return channelsLast
          ? new long[] {images, side, side, channels}
          : new long[] {images, channels, side, side};
    }
  }

  /** How much is measured: sets of tensors, samples, and calls that make a sample of calls. */
  record Effort(int sets, int samples, int calls) {}

  /**
   * A pass's times, and its largest error as {@link Reference#error} says it.
   *
   * @param bytesOnChip what one launch keeps there; 0: there are several, or it keeps nothing
   */
  record Result(Times times, double error, double allowed, long bytesOnChip) {
    boolean isRight() {
      return error <= allowed;
    }
  }

  private final boolean canExchange;
  private final DType dtype;
  private final int samples;
  private final int callsPerSample;
  private final int sets;
  private final long bytes;
  private final Cuda.Stream stream;
  private final Replica replica;
  private final SyncBatchNormalization layer;
  private final Kernels kernels;
  private final Cuda.Memory ofX;
  private final Cuda.Memory ofY;
  private final Cuda.Memory ofDy;
  private final Cuda.Memory ofDx;
  private final Cuda.Memory channel;
  private final long elementsOfChannel;
  private final List<DeviceTensor> x;
  private final List<DeviceTensor> y;
  private final List<DeviceTensor> dy;
  private final List<DeviceTensor> dx;
  private final int[] sampled;
  private final List<Reference> references = new ArrayList<>();
  private final Map<String, Result> results = new LinkedHashMap<>();

  /**
   * @param rank on the stream {@code stream}, as the replica is
   * @param source random values of the dtype
   */
  TimedCase(
      OneRank rank,
      Replica replica,
      Cuda.Stream stream,
      Tensors tensors,
      Effort effort,
      Cuda.Memory source) {
    this.canExchange = rank.canExchange();
    this.stream = stream;
    this.replica = replica;
    dtype = tensors.dtype;
    sets = effort.sets;
    samples = effort.samples;
    callsPerSample = effort.calls;
    elementsOfChannel = tensors.elementsOfChannel();
    bytes = tensors.bytes();
    int channels = tensors.channels;
    long[] shape = tensors.shape();
    layer =
        SyncBatchNormalization.builder(replica.group())
            .dtype(dtype)
            .axis(tensors.channelsLast ? 3 : 1)
            .epsilon(Reference.EPSILON)
            .build(shape);
    double[] gamma = IntStream.range(0, channels).mapToDouble(c -> 1 + Math.sin(c) / 4).toArray();
    double[] beta = IntStream.range(0, channels).mapToDouble(c -> Math.cos(c) / 2).toArray();
    layer.setWeights(
        List.of(
            gamma,
            beta,
            new double[channels],
            DoubleStream.generate(() -> 1).limit(channels).toArray()));
    kernels =
        tensors.channelsLast
            ? new Kernels(rank, layer, replica, elementsOfChannel, 1)
            : new Kernels(rank, layer, replica, tensors.images, elementsOfChannel / tensors.images);
    ofX = new Cuda.Memory(sets * bytes);
    ofY = new Cuda.Memory(sets * bytes);
    ofDy = new Cuda.Memory(sets * bytes);
    ofDx = new Cuda.Memory(sets * bytes);
    channel = new Cuda.Memory(elementsOfChannel * dtype.bytes());
    fill(ofX, source, 0);
    fill(ofDy, source, source.bytes() / 3 / 16 * 16);
    x = wrapped(ofX, shape);
    y = wrapped(ofY, shape);
    dy = wrapped(ofDy, shape);
    dx = wrapped(ofDx, shape);
    sampled = IntStream.of(0, channels / 2, channels - 1).distinct().toArray();
    for (int c : sampled) {
      float g = (float) gamma[c];
      float b = (float) beta[c];
      references.add(new Reference(channel(x, c), channel(dy, c), g, b));
    }
  }

  /** Random values again and again, from {@code offset} bytes on. */
  private void fill(Cuda.Memory memory, Cuda.Memory source, long offset) {
    long from = offset;
    for (long at = 0; at < memory.bytes(); ) {
      long part = Math.min(source.bytes() - from, memory.bytes() - at);
      stream.copy(memory.address() + at, source.address() + from, part);
      at += part;
      from = 0;
    }
  }

  private List<DeviceTensor> wrapped(Cuda.Memory memory, long[] shape) {
    List<DeviceTensor> tensors = new ArrayList<>();
    for (int i = 0; i < sets; i++) {
      tensors.add(replica.wrap(memory.address() + i * bytes, dtype, shape));
    }
    return tensors;
  }

  /** Times every pass; by its name, in order. */
  Map<String, Result> run() {
    warmUp();
    timeGraph("copy", i -> stream.copy(address(y, i), address(x, i), bytes), this::errorOfCopy, 0);
    timeKernels();
    timeSeparate();
    if (canExchange) {
      timeExchanged();
    }
    timeLayer();
    return results;
  }

  /** Everything once, with as many passes open as there will be. */
  private void warmUp() {
    List<ForwardPass> passes = new ArrayList<>();
    for (int i = 0; i < sets; i++) {
      passes.add(layer.forward(replica, x.get(i), y.get(i), true));
    }
    for (int i = 0; i < sets; i++) {
      layer.backward(passes.get(i), dy.get(i), dx.get(i));
      layer.infer(replica, x.get(i), y.get(i));
    }
    passes.forEach(ForwardPass::close);
    kernels.stats(address(x, 0));
    kernels.normalize(address(x, 0), address(y, 0));
    kernels.backwardReduce(address(x, 0), address(dy, 0));
    kernels.backwardInput(address(x, 0), address(dy, 0), address(dx, 0));
    if (canExchange) {
      kernels.forward(address(x, 0), address(y, 0));
      kernels.backward(address(x, 0), address(dy, 0), address(dx, 0));
    }
    replica.synchronize();
  }

  private void timeKernels() {
    kernels.poison(stream);
    timeGraph("stats", i -> kernels.stats(address(x, i)), this::errorOfStatistics, ofStatistics());
    timeGraph(
        "normalize",
        i -> kernels.normalize(address(x, i), address(y, i)),
        () -> errorOf(y, r -> r.y),
        ofTensors());
    timeGraph(
        "backward_reduce",
        i -> kernels.backwardReduce(address(x, i), address(dy, i)),
        () ->
            errorOfGradients(
                parameters(kernels.gammaGradient()), parameters(kernels.betaGradient())),
        ofStatistics());
    timeGraph(
        "backward_input",
        i -> kernels.backwardInput(address(x, i), address(dy, i), address(dx, i)),
        () -> errorOf(dx, r -> r.dx),
        ofTensors());
  }

  /** Forward and backward of a replica that is alone, in two launches also where one would do. */
  private void timeSeparate() {
    timeGraph(
        "separate_forward",
        i -> kernels.separateForward(address(x, i), address(y, i)),
        () -> errorOf(y, r -> r.y),
        ofTensors());
    timeGraph(
        "separate_backward",
        i -> kernels.separateBackward(address(x, i), address(dy, i), address(dx, i)),
        () -> errorOf(dx, r -> r.dx),
        ofTensors());
  }

  /** Forward and backward with NCCL between their kernels. */
  private void timeExchanged() {
    IntConsumer forward = i -> kernels.forward(address(x, i % sets), address(y, i % sets));
    timeCalls("nccl_forward_call", forward, () -> errorOf(y, r -> r.y));
    timeGraph("nccl_forward", forward, () -> errorOf(y, r -> r.y), ofTensors());
    IntConsumer backward =
        i -> kernels.backward(address(x, i % sets), address(dy, i % sets), address(dx, i % sets));
    timeCalls("nccl_backward_call", backward, () -> errorOf(dx, r -> r.dx));
    timeGraph("nccl_backward", backward, () -> errorOf(dx, r -> r.dx), ofTensors());
  }

  private void timeLayer() {
    IntConsumer infer = i -> layer.infer(replica, x.get(i % sets), y.get(i % sets));
    timeGraph("inference", infer, this::errorOfInference, ofTensors());
    timeCalls("inference_call", infer, this::errorOfInference);
    timeCalls(
        "forward_call",
        i -> layer.forward(replica, x.get(i % sets), y.get(i % sets), true).close(),
        () -> errorOf(y, r -> r.y));
    List<ForwardPass> passes = new ArrayList<>();
    timeGraph(
        "forward",
        i -> passes.add(layer.forward(replica, x.get(i), y.get(i), true)),
        () -> errorOf(y, r -> r.y),
        ofTensors());
    Supplier<Double> ofBackward =
        () ->
            Math.max(
                errorOf(dx, r -> r.dx),
                errorOfGradients(
                    layer.gammaGradient(replica).copyToHostAsDoubles(),
                    layer.betaGradient(replica).copyToHostAsDoubles()));
    IntConsumer backward =
        i -> layer.backward(passes.get(i % sets), dy.get(i % sets), dx.get(i % sets));
    timeCalls("backward_call", backward, () -> errorOf(dx, r -> r.dx));
    timeGraph("backward", backward, ofBackward, ofTensors());
    passes.forEach(ForwardPass::close);
  }

  private void timeGraph(String pass, IntConsumer call, Supplier<Double> error, double allowed) {
    try (Cuda.Graph graph = stream.capture(() -> IntStream.range(0, sets).forEach(call))) {
      poison();
      Times times = Times.ofGraph(stream, graph, samples, sets);
      results.put(pass, new Result(times, error.get(), allowed, bytesOnChip(pass)));
    }
  }

  private void timeCalls(String pass, IntConsumer call, Supplier<Double> error) {
    poison();
    Times times = Times.ofCalls(stream, samples, callsPerSample, call);
    call.accept(sets - 1); // the set that is looked at may not have had its turn
    results.put(pass, new Result(times, error.get(), ofTensors(), bytesOnChip(pass)));
  }

  private long bytesOnChip(String pass) {
    return switch (pass) {
      case "forward", "forward_call" -> kernels.forwardOnChip(address(x, 0), address(y, 0));
      case "backward", "backward_call" ->
          kernels.backwardOnChip(address(x, 0), address(dy, 0), address(dx, 0));
      default -> 0;
    };
  }

  /** So that what a pass should have written, and has not, shows. */
  private void poison() {
    stream.fill(address(y, sets - 1), 0xff, bytes);
    stream.fill(address(dx, sets - 1), 0xff, bytes);
  }

  private static long address(List<DeviceTensor> tensors, int set) {
    return tensors.get(set).address();
  }

  // ------------------------------------------------------------------------------------------------- errors

  /** Of values that are rounded to the tensors' type: half a unit in the last place more. */
  private double ofTensors() {
    return ofStatistics()
        + switch (dtype) {
          case FLOAT16 -> 0x1p-11;
          case BFLOAT16 -> 0x1p-8;
          default -> 0;
        };
  }

  /** Of what is computed in float32 from the tensors' values; the tests' tolerance. */
  private static double ofStatistics() {
    return 4e-6;
  }

  private double[] channel(List<DeviceTensor> tensors, int c) {
    kernels.gather(address(tensors, sets - 1), c, channel.address());
    return replica.wrap(channel.address(), dtype, elementsOfChannel).copyToHostAsDoubles();
  }

  private interface Wanted {
    double[] of(Reference reference);
  }

  private double errorOf(List<DeviceTensor> tensors, Wanted wanted) {
    double error = 0;
    for (int k = 0; k < sampled.length; k++) {
      double[] want = wanted.of(references.get(k));
      error = Math.max(error, Reference.error(channel(tensors, sampled[k]), want));
    }
    return error;
  }

  private double errorOfCopy() {
    double error = 0;
    for (int c : sampled) {
      error = Math.max(error, Reference.error(channel(y, c), channel(x, c)));
    }
    return error;
  }

  private double errorOfInference() {
    double[] mean = layer.movingMean(replica).copyToHostAsDoubles();
    double[] variance = layer.movingVariance(replica).copyToHostAsDoubles();
    double error = 0;
    for (int k = 0; k < sampled.length; k++) {
      int c = sampled[k];
      double[] want = references.get(k).inference(mean[c], variance[c]);
      error = Math.max(error, Reference.error(channel(y, c), want));
    }
    return error;
  }

  private double errorOfStatistics() {
    int channels = (int) layer.channels();
    double[] rows =
        replica.wrap(kernels.statistics(), DType.FLOAT64, 2L * channels).copyToHostAsDoubles();
    double error = 0;
    for (int k = 0; k < sampled.length; k++) {
      Reference reference = references.get(k);
      double sigma = Math.sqrt(reference.variance);
      double mean = rows[sampled[k]];
      double variance = rows[channels + sampled[k]] / elementsOfChannel;
      error = Math.max(error, Math.abs(mean - reference.mean) / sigma);
      error = Math.max(error, Math.abs(variance / reference.variance - 1));
    }
    return error;
  }

  private double[] parameters(long address) {
    return replica.wrap(address, dtype.ofParameters(), layer.channels()).copyToHostAsDoubles();
  }

  private double errorOfGradients(double[] gamma, double[] beta) {
    int n = sampled.length;
    double[] got = new double[2 * n];
    double[] want = new double[2 * n];
    for (int k = 0; k < n; k++) {
      got[k] = gamma[sampled[k]];
      want[k] = references.get(k).gammaGradient;
      got[n + k] = beta[sampled[k]];
      want[n + k] = references.get(k).betaGradient;
    }
    return Reference.error(got, want);
  }

  @Override
  public void close() {
    replica.synchronize();
    layer.close();
    kernels.close();
    List.of(ofX, ofY, ofDy, ofDx, channel).forEach(Cuda.Memory::close);
  }
}
