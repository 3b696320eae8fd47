package io.github.syncbn4j.faults;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.device.cuda.CudaRuntime;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;

/**
 * What a user does with two GPUs, so that every function that the library calls is called: a group,
 * layers, steps on streams of the user's and of the group's own, inference, collectives, copies,
 * steps whose memory grows, and the end.
 */
final class Workload implements AutoCloseable {
  /** How a user's program drives its GPUs. */
  enum Threads {
    ONE,
    ONE_EACH
  }

  /** Shorter than any test's patience: what fails must not be left to the timeout. */
  static final Duration TIMEOUT = Duration.ofSeconds(20);

  private static final int CHANNELS = 5;
  private static final int ROWS = 6;

  private final Threads threads;

  /** The user's, by rank. */
  private final List<CUstream_st> streams = new ArrayList<>();

  private boolean hasClosed;
  private ReplicaGroup group;
  private SyncBatchNormalization layer;
  private SyncBatchNormalization packing;
  private Tensors plain;
  private Tensors small;
  private Tensors large;

  Workload(Threads threads) {
    this.threads = threads;
    for (int gpu = 0; gpu < 2; gpu++) {
      CUstream_st stream = new CUstream_st();
      ok(cudart.cudaSetDevice(gpu));
      ok(cudart.cudaStreamCreateWithFlags(stream, cudart.cudaStreamNonBlocking));
      streams.add(stream);
    }
    ok(cudart.cudaSetDevice(0));
  }

  private static void ok(int error) {
    assertThat(error).isEqualTo(cudart.cudaSuccess);
  }

  /** Closes the user's streams; the group must be closed. */
  @Override
  public void close() {
    ok(cudart.cudaSetDevice(0)); // whatever a failure has left
    streams.forEach(stream -> ok(cudart.cudaStreamDestroy(stream)));
  }

  /** Null until it is made. */
  ReplicaGroup group() {
    return group;
  }

  /** Whether a replica's thread failed, which closed the group. */
  boolean hasClosed() {
    return hasClosed;
  }

  /** Everything but the end. Returns what came out, in a fixed order. */
  List<float[]> run() {
    group = ReplicaGroup.builder().gpus(0, 1).timeout(TIMEOUT).build();
    group.replica(1).deviceDescription();
    CudaRuntime.computeCapability(1);
    CudaRuntime.runtimeVersion();
    CudaRuntime.driverVersion();
    layer = SyncBatchNormalization.builder(group, CHANNELS).build();
    // Its channels lie apart in memory: tensors are packed into memory of the pass.
    packing = SyncBatchNormalization.builder(group).axis(1, 3).relu(true).build(-1, 3, 4, 5);
    plain = new Tensors(ROWS, CHANNELS);
    group.replica(0).wrap(plain.x.get(0).address(), DType.FLOAT32, ROWS, CHANNELS);
    small = new Tensors(2, 3, 4, 5);
    large = new Tensors(ROWS, 3, 4, 5);
    if (threads == Threads.ONE) {
      stepsOfAll();
    } else {
      onThreads();
    }
    group.synchronize();
    List<float[]> results = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      for (Tensors tensors : List.of(plain, small, large)) {
        results.add(tensors.y.get(replica.rank()).copyToHost());
        results.add(tensors.dx.get(replica.rank()).copyToHost());
      }
      results.add(layer.gammaGradient(replica).copyToHost());
      results.add(packing.movingVariance(replica).copyToHost());
    }
    return results;
  }

  /** Builds a layer, and takes a training step of all replicas. */
  void anotherStep() {
    try (SyncBatchNormalization another = SyncBatchNormalization.builder(group, CHANNELS).build()) {
      Tensors tensors = new Tensors(ROWS, CHANNELS);
      try (ForwardPass pass = another.forward(tensors.x, tensors.y, true)) {
        another.backward(pass, tensors.dy, tensors.dx);
      }
      group.synchronize();
    }
  }

  /** Another training step, on what {@link #run} has built. */
  void step() {
    try (ForwardPass pass = layer.forward(plain.x, plain.y, true)) {
      layer.backward(pass, plain.dy, plain.dx);
    }
    group.synchronize();
  }

  private void stepsOfAll() {
    group.replicas().forEach(replica -> replica.useStream(streamOf(replica)));
    try (ForwardPass pass = layer.forward(plain.x, plain.y, true)) {
      layer.backward(pass, plain.dy, plain.dx);
    }
    layer.infer(plain.x, plain.y);
    layer.allReduceGradients();
    group.broadcast(plain.dx, 1);
    group.replicas().forEach(Replica::useOwnStream);
    for (Tensors tensors : List.of(small, large)) {
      try (ForwardPass pass =
          packing.forward(tensors.x, tensors.y, tensors.residual, tensors.mask, true)) {
        packing.recompute(pass, tensors.x, tensors.y, tensors.residual);
        packing.backward(pass, tensors.dy, tensors.dx, tensors.residual);
      }
    }
  }

  private void stepsOf(Replica replica) {
    int rank = replica.rank();
    replica.useStream(streamOf(replica));
    try (ForwardPass pass = layer.forward(replica, plain.x.get(rank), plain.y.get(rank), true)) {
      layer.backward(pass, plain.dy.get(rank), plain.dx.get(rank));
    }
    layer.infer(replica, plain.x.get(rank), plain.y.get(rank));
    layer.allReduceGradients(replica);
    replica.broadcast(plain.dx.get(rank), 1);
    replica.useOwnStream();
    for (Tensors tensors : List.of(small, large)) {
      DeviceTensor x = tensors.x.get(rank);
      DeviceTensor y = tensors.y.get(rank);
      DeviceTensor residual = tensors.residual.get(rank);
      try (ForwardPass pass =
          packing.forward(replica, x, y, residual, tensors.mask.get(rank), true)) {
        packing.recompute(pass, x, y, residual);
        packing.backward(pass, tensors.dy.get(rank), tensors.dx.get(rank), residual);
      }
    }
    replica.synchronize();
  }

  private long streamOf(Replica replica) {
    return streams.get(replica.rank()).address();
  }

  /** Closes the group as soon as one replica fails, since the others may wait for it. */
  private void onThreads() {
    CompletableFuture<Void> failure = new CompletableFuture<>();
    List<CompletableFuture<Void>> ends = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      CompletableFuture<Void> end = new CompletableFuture<>();
      ends.add(end);
      new Thread(
              () -> {
                try {
                  stepsOf(replica);
                } catch (RuntimeException e) {
                  failure.completeExceptionally(e);
                }
                end.complete(null);
              },
              "workload-" + replica.rank())
          .start();
    }
    CompletableFuture<Void> all = CompletableFuture.allOf(ends.toArray(CompletableFuture[]::new));
    CompletableFuture.anyOf(all, failure).handle((done, thrown) -> null).join();
    RuntimeException known = thrownBy(failure);
    if (known != null) {
      hasClosed = true;
      try {
        group.close();
      } catch (RuntimeException e) {
        known.addSuppressed(e);
      }
    }
    try {
      all.get(TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    } catch (TimeoutException e) {
      throw new AssertionError("a replica's thread hangs", e);
    } catch (Exception e) {
      throw new AssertionError(e);
    }
    if (known != null) {
      throw known;
    }
  }

  private static RuntimeException thrownBy(CompletableFuture<Void> failure) {
    try {
      failure.getNow(null);
      return null;
    } catch (CompletionException e) {
      return (RuntimeException) e.getCause();
    }
  }

  /** One of each a replica. */
  private final class Tensors {
    final List<DeviceTensor> x = new ArrayList<>();
    final List<DeviceTensor> y = new ArrayList<>();
    final List<DeviceTensor> dy = new ArrayList<>();
    final List<DeviceTensor> dx = new ArrayList<>();
    final List<DeviceTensor> residual = new ArrayList<>();
    final List<DeviceTensor> mask = new ArrayList<>();

    Tensors(long... shape) {
      for (Replica replica : group.replicas()) {
        x.add(filled(replica, shape));
        y.add(replica.allocate(DType.FLOAT32, shape));
        dy.add(filled(replica, shape));
        dx.add(replica.allocate(DType.FLOAT32, shape));
        residual.add(filled(replica, shape));
        DeviceTensor all = replica.allocate(DType.BOOL, Arrays.copyOf(shape, shape.length - 1));
        byte[] bytes = new byte[Math.toIntExact(all.elements())];
        for (int i = 0; i < bytes.length; i++) {
          bytes[i] = (byte) (i % 3 == 0 ? 0 : 1);
        }
        all.copyFromHost(ByteBuffer.wrap(bytes));
        mask.add(all);
      }
    }

    private DeviceTensor filled(Replica replica, long... shape) {
      DeviceTensor tensor = replica.allocate(DType.FLOAT32, shape);
      float[] values = new float[Math.toIntExact(tensor.elements())];
      for (int i = 0; i < values.length; i++) {
        values[i] = (float) Math.sin(i * (replica.rank() + 1.3));
      }
      tensor.copyFromHost(values);
      return tensor;
    }
  }
}
