package io.github.syncbn4j;

import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * What Java costs: calls of the layer over tensors of two elements, whose kernels have next to
 * nothing to do, on the calling thread alone.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class CallBenchmark {
  @Param({"FLOAT32", "BFLOAT16"})
  public DType dtype;

  private ReplicaGroup group;
  private SyncBatchNormalization layer;
  private Replica replica;
  private DeviceTensor x;
  private DeviceTensor y;
  private ForwardPass pass;

  @Setup(Level.Trial)
  public void open() {
    group = ReplicaGroup.builder().cpus(1).threads(1).build();
    replica = group.replica(0);
    layer = SyncBatchNormalization.builder(group).dtype(dtype).build(2, 1);
    x = replica.allocate(dtype, 2, 1);
    y = replica.allocate(dtype, 2, 1);
    x.copyFromHost(1f, 2f);
    pass = layer.forward(replica, x, y, true);
  }

  @Benchmark
  public void forward() {
    layer.forward(replica, x, y, true).close();
  }

  @Benchmark
  public void backward() {
    layer.backward(pass, x, y);
  }

  @Benchmark
  public void inference() {
    layer.infer(replica, x, y);
  }

  @Benchmark
  public DeviceTensor wrap() {
    return replica.wrap(x.address(), dtype, 2, 1);
  }

  @TearDown(Level.Trial)
  public void close() {
    pass.close();
    layer.close();
    group.close();
  }
}
