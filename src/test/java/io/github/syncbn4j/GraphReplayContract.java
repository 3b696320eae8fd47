package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.cli.cuda.Cuda;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Training steps that are captured into a CUDA graph and replayed: they give the bits of steps that
 * are called, and the state moves on.
 */
@Timeout(120)
abstract class GraphReplayContract implements Devices {
  private static final int CHANNELS = 37;
  private static final int ROWS = 9;
  private static final int REPLAYS = 100;

  /** What the state's next value depends on, each in another way. */
  enum Option {
    MOVING_AVERAGE(builder -> builder),
    CUMULATIVE_AVERAGE(SyncBatchNormalization.Builder::cumulativeAverage),
    RENORM(builder -> builder.renorm(true)),
    RELU(builder -> builder.relu(true)),
    /** Packed into memory of the pass, which the graph then names. */
    SPLIT_AXES(builder -> builder);

    final UnaryOperator<SyncBatchNormalization.Builder> set;

    Option(UnaryOperator<SyncBatchNormalization.Builder> set) {
      this.set = set;
    }

    SyncBatchNormalization layer(ReplicaGroup group) {
      SyncBatchNormalization.Builder builder =
          set.apply(SyncBatchNormalization.builder(group).momentum(0.8));
      return this == SPLIT_AXES
          ? builder.axis(0, 2).build(ROWS, 3, CHANNELS)
          : builder.axis(-1).build(-1, CHANNELS);
    }

    DeviceTensor tensor(Replica replica) {
      return this == SPLIT_AXES
          ? replica.allocate(DType.FLOAT32, ROWS, 3, CHANNELS)
          : replica.allocate(DType.FLOAT32, ROWS, CHANNELS);
    }
  }

  /** One replica's layer and tensors, stepped by calls or by a graph. */
  private static final class Trained {
    private final SyncBatchNormalization layer;
    private final Replica replica;
    private final DeviceTensor x;
    private final DeviceTensor y;
    private final DeviceTensor dy;
    private final DeviceTensor dx;

    Trained(SyncBatchNormalization layer, Replica replica, Option option) {
      this.layer = layer;
      this.replica = replica;
      x = option.tensor(replica);
      y = option.tensor(replica);
      dy = option.tensor(replica);
      dx = option.tensor(replica);
    }

    void step() {
      try (ForwardPass pass = layer.forward(replica, x, y, true)) {
        layer.backward(pass, dy, dx);
      }
    }

    /** Values that differ by step and rank. */
    void load(int step) {
      Random random = new Random(1000L * replica.rank() + step);
      x.copyFromHost(values(random, step));
      dy.copyFromHost(values(random, 0));
    }

    private float[] values(Random random, double mean) {
      float[] values = new float[(int) x.elements()];
      for (int i = 0; i < values.length; i++) {
        values[i] = (float) (random.nextGaussian() + mean);
      }
      return values;
    }

    List<Integer> results() {
      List<float[]> results = new ArrayList<>();
      results.add(y.copyToHost());
      results.add(dx.copyToHost());
      results.add(layer.gammaGradient(replica).copyToHost());
      results.add(layer.betaGradient(replica).copyToHost());
      layer.variables(replica).values().forEach(state -> results.add(state.copyToHost()));
      return bits(results);
    }
  }

  @ParameterizedTest
  @EnumSource
  void replaysWithNewData_giveTheBitsOfCalledSteps_andMoveTheStateOn(Option option) {
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      Trained called = new Trained(option.layer(group), replica, option);
      Trained replayed = new Trained(option.layer(group), replica, option);
      try (Cuda.Stream stream = new Cuda.Stream()) {
        replica.useStream(stream.address());
        assertThat(replica.stream()).isEqualTo(stream.address());
        for (Trained each : List.of(called, replayed)) {
          each.load(0);
          each.step();
        }
        assertThat(replayed.results()).isEqualTo(called.results());
        try (Cuda.Graph graph = stream.capture(replayed::step)) {
          assertThat(replayed.layer.countedSteps()).as("capturing runs nothing").isOne();
          for (int step = 1; step <= REPLAYS; step++) {
            called.load(step);
            called.step();
            replayed.load(step);
            stream.launch(graph);
            assertThat(replayed.results()).as("step %d", step).isEqualTo(called.results());
          }
          assertThat(replayed.layer.countedSteps()).isEqualTo(1 + REPLAYS);
          replayed.load(REPLAYS + 1);
          replayed.step();
          called.load(REPLAYS + 1);
          called.step();
          assertThat(replayed.results()).as("called after replays").isEqualTo(called.results());
          group.synchronize();
        }
        replica.useOwnStream();
        group.synchronize();
      }
    }
  }

  @Tag("several")
  @Test
  void replicasWithAThreadEach_captureAndReplay_withTheBitsOfCalledSteps() throws Exception {
    ReplicaGroup group = group(2);
    Option option = Option.CUMULATIVE_AVERAGE;
    try (Job job = new Job(group, option.layer(group), 1, 0, 0, 0)) {
      SyncBatchNormalization other = option.layer(group);
      Map<Integer, List<List<Integer>>> called = new ConcurrentHashMap<>();
      Map<Integer, List<List<Integer>>> replayed = new ConcurrentHashMap<>();
      job.onThreads(r -> called.put(r.rank(), calledSteps(new Trained(job.layer, r, option))));
      job.onThreads(r -> replayed.put(r.rank(), replayedSteps(new Trained(other, r, option))));
      assertThat(replayed).isEqualTo(called);
      assertThat(other.countedSteps()).isEqualTo(1 + REPLAYS);
    }
  }

  private static List<List<Integer>> calledSteps(Trained trained) {
    List<List<Integer>> results = new ArrayList<>();
    for (int step = 0; step <= REPLAYS; step++) {
      trained.load(step);
      trained.step();
      results.add(trained.results());
    }
    return results;
  }

  private static List<List<Integer>> replayedSteps(Trained trained) {
    List<List<Integer>> results = new ArrayList<>();
    Cuda.setDevice(trained.replica.rank());
    try (Cuda.Stream stream = new Cuda.Stream()) {
      trained.replica.useStream(stream.address());
      trained.load(0);
      trained.step();
      results.add(trained.results());
      try (Cuda.Graph graph = stream.capture(trained::step)) {
        for (int step = 1; step <= REPLAYS; step++) {
          trained.load(step);
          stream.launch(graph);
          results.add(trained.results());
        }
      }
      trained.replica.useOwnStream();
      trained.replica.synchronize();
    }
    return results;
  }

  // ------------------------------------------------------------------------------------- what is
  // refused

  @Test
  void allocatingAndWaiting_areRefusedInACapture_andStepsWorkAfterwards() {
    try (ReplicaGroup group = group(1)) {
      Replica replica = group.replica(0);
      Trained trained = new Trained(Option.RELU.layer(group), replica, Option.RELU);
      try (Cuda.Stream stream = new Cuda.Stream()) {
        replica.useStream(stream.address());
        trained.load(0);
        assertRefused(stream, trained::step, "capture");
        assertRefused(stream, () -> replica.allocate(DType.FLOAT32, 4), "capture");
        assertRefused(stream, replica::synchronize, "nobody can wait", "capture");
        assertRefused(stream, trained.y::copyToHost, "nobody can wait", "capture");
        trained.step();
        List<Integer> bits = trained.results();
        Trained alone = new Trained(Option.RELU.layer(group), replica, Option.RELU);
        alone.load(0);
        alone.step();
        assertThat(bits).isEqualTo(alone.results());
        try (Cuda.Graph graph = stream.capture(trained::step)) {
          stream.launch(graph);
          group.synchronize();
          assertThat(trained.layer.countedSteps()).isEqualTo(2);
        }
        replica.useOwnStream();
        group.synchronize();
      }
    }
  }

  private static void assertRefused(Cuda.Stream stream, Runnable call, String... texts) {
    try (Cuda.Graph graph =
        stream.capture(
            () ->
                assertThatThrownBy(call::run)
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContainingAll(texts))) {
      stream.launch(graph); // the capture is still valid, and empty
    }
  }

  @Tag("several")
  @Test
  void oneThreadWithTwoReplicas_isRefusedInACapture_andStepsWorkAfterwards() {
    ReplicaGroup group = group(2);
    try (Job job = new Job(group, Option.RELU.layer(group), 1, 0, 6, 6)) {
      job.step();
      try (Cuda.Stream stream = new Cuda.Stream()) {
        group.replica(0).useStream(stream.address());
        assertRefused(
            stream,
            () -> job.layer.forward(job.xTensors, job.y, true).close(),
            "one thread cannot capture the steps of several replicas",
            "use a thread for each");
        job.step();
        group.replica(0).useOwnStream();
        group.synchronize();
      }
    }
  }
}
