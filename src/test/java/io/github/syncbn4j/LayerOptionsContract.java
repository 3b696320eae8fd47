package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static io.github.syncbn4j.Refusals.assertIllegal;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the layer's options and its ways of being called promise, one by one. */
@Timeout(120)
abstract class LayerOptionsContract extends SixChannels {
  // -----------------------------------------------------------------------------------------------
  // recomputation

  @Tag("several")
  @Test
  void recompute_givesTheSameBits_exchangesNothing_andChangesNoState() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = groupOf(2).trace(trace::add).build();
        Job job = new Job(group, layerOf(group).relu(true).build(), 3, 0.5, 7, 4);
        ForwardPass pass = job.layer.forward(job.xTensors, job.y, job.dyTensors, null, true)) {
      List<Integer> y = bits(job.y.get(0), job.y.get(1));
      List<Integer> state = bits(job.state(group.replica(0)));
      job.y.forEach(tensor -> tensor.copyFromHost(new float[(int) tensor.elements()]));
      trace.clear();
      job.layer.recompute(pass, job.xTensors, job.y, job.dyTensors);
      assertThat(trace).hasSize(2).allMatch(line -> line.contains("kernel normalize"));
      assertThat(bits(job.y.get(0), job.y.get(1))).isEqualTo(y);
      assertThat(bits(job.state(group.replica(0)))).isEqualTo(state);
      assertIllegal(
          () -> job.layer.recompute(pass, job.xTensors, job.y, null), "residual is missing");
      DeviceTensor small = group.replica(0).allocate(DType.FLOAT32, 3, CHANNELS);
      assertIllegal(
          () ->
              job.layer.recompute(pass, List.of(small, job.xTensors.get(1)), job.y, job.dyTensors),
          "shape [7, 6]",
          "[3, 6]");
      job.layer.backward(pass, job.dyTensors, job.dx, job.y);
      assertThat(job.dx.get(0).copyToHost()).isNotEqualTo(new float[7 * CHANNELS]);
    }
  }

  /** What a refused call was given must not become the open pass's. */
  @Test
  void refusedRecompute_leavesThePassAsItWas() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).relu(true).build(), 3, 0.5, 7);
        Job other = new Job(group, layerOf(group).build(), 4, 9, 7);
        ForwardPass pass = job.layer.forward(job.xTensors, job.y, job.dyTensors, null, true)) {
      job.layer.backward(pass, job.dyTensors, job.dx, job.y);
      List<Integer> dx = bits(job.dx.get(0));
      DeviceTensor small = group.replica(0).allocate(DType.FLOAT32, 3, CHANNELS);
      assertIllegal(
          () -> job.layer.recompute(pass, other.xTensors, List.of(small), job.dyTensors), "y has");
      assertIllegal(
          () -> job.layer.recompute(pass, other.xTensors, job.y, List.of(small)), "residual has");
      job.layer.backward(pass, job.dyTensors, job.dx, job.y);
      assertThat(bits(job.dx.get(0))).isEqualTo(dx);
    }
  }

  // ------------------------------------------------------------------------------------------------------- frozen

  /** One call is of one kind on all replicas, whatever happens meanwhile. */
  @Tag("several")
  @Test
  void freezingInTheMiddleOfACall_isForTheNextCall() {
    try (ReplicaGroup group = group(2)) {
      SyncBatchNormalization[] layer = new SyncBatchNormalization[1];
      layer[0] =
          layerOf(group)
              .adjustment(
                  (replica, shape) -> {
                    layer[0].setTrainable(false);
                    DeviceTensor one = replica.allocate(DType.FLOAT32, 1);
                    one.copyFromHost(1f);
                    return new Adjustment.Factors(one, one);
                  })
              .build();
      try (Job job = new Job(group, layer[0], 3, 0.5, 7, 4)) {
        job.step();
        assertThat(job.layer.countedSteps()).isEqualTo(1);
        job.step();
        assertThat(job.layer.countedSteps()).isEqualTo(1);
      }
    }
  }

  @Tag("several")
  @Test
  void frozenLayer_infers_andItsParametersHaveNoGradients() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = groupOf(2).trace(trace::add).build();
        Job job = new Job(group, layerOf(group).trainable(false).build(), 3, 0.5, 7, 4)) {
      assertThat(job.layer.isTrainable()).isFalse();
      job.layer.infer(job.xTensors, job.y);
      List<Integer> inferred = bits(job.y.get(0), job.y.get(1));
      List<Integer> state = bits(job.state(group.replica(0)));
      trace.clear();
      job.step();
      assertThat(trace).noneMatch(line -> line.contains("in place"));
      assertThat(bits(job.y.get(0), job.y.get(1))).isEqualTo(inferred);
      assertThat(bits(job.state(group.replica(0)))).isEqualTo(state);
      job.layer.gammaGradient(group.replica(0)).copyFromHost(new double[CHANNELS]);
      job.layer.allReduceGradients();
      assertThat(trace).noneMatch(line -> line.contains("in place"));
      assertThat(job.layer.gammaGradient(group.replica(0)).copyToHost()).containsOnly(0);
      assertThat(job.dx.get(0).copyToHost()[0])
          .isCloseTo(job.dy.get(0)[0] / (float) Math.sqrt(1 + 1e-3), within(1e-6f));
      job.layer.setTrainable(true);
      job.step();
      assertThat(bits(job.state(group.replica(0)))).isNotEqualTo(state);
      assertThat(job.layer.countedSteps()).isEqualTo(1);
    }
  }

  // --------------------------------------------------------------------------------------------
  // shared and parallel

  /** A layer used twice in a step, as in a siamese network: its passes are independent. */
  @Tag("several")
  @Test
  void layerUsedTwice_keepsBothPasses_andCountsBoth() throws Exception {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4);
        Job other = new Job(group, layerOf(group).build(), 4, 2, 7, 4)) {
      other.step();
      List<Integer> alone = bits(other.dx.get(0), other.dx.get(1));
      job.onThreads(
          replica -> {
            int rank = replica.rank();
            try (ForwardPass first =
                    job.layer.forward(replica, job.xTensors.get(rank), job.y.get(rank), true);
                ForwardPass second =
                    job.layer.forward(replica, other.xTensors.get(rank), other.y.get(rank), true)) {
              job.layer.backward(second, other.dyTensors.get(rank), other.dx.get(rank));
              job.layer.backward(first, job.dyTensors.get(rank), job.dx.get(rank));
            }
          });
      assertThat(bits(other.dx.get(0), other.dx.get(1))).isEqualTo(alone);
      assertThat(job.layer.countedSteps()).isEqualTo(2);
    }
  }

  @Tag("several")
  @Test
  void layersInParallelBranches_areEachThemselves() throws Exception {
    try (ReplicaGroup group = group(2);
        Job left = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4);
        Job right = new Job(group, layerOf(group).momentum(0.5).build(), 3, 0.5, 7, 4)) {
      left.step();
      right.step();
      List<Integer> leftAlone = bits(left.results().subList(0, 4));
      List<Integer> rightAlone = bits(right.results().subList(0, 4));
      left.onThreads(
          replica -> {
            int rank = replica.rank();
            try (ForwardPass a =
                    left.layer.forward(replica, left.xTensors.get(rank), left.y.get(rank), true);
                ForwardPass b =
                    right.layer.forward(
                        replica, right.xTensors.get(rank), right.y.get(rank), true)) {
              left.layer.backward(a, left.dyTensors.get(rank), left.dx.get(rank));
              right.layer.backward(b, right.dyTensors.get(rank), right.dx.get(rank));
            }
          });
      assertThat(bits(left.results().subList(0, 4))).isEqualTo(leftAlone);
      assertThat(bits(right.results().subList(0, 4))).isEqualTo(rightAlone);
    }
  }

  /** Loss scaling: gradients overflow, the step is skipped, the next one is right. */
  @Tag("several")
  @Test
  void gradientsWithInfinities_changeNothingButTheGradients() {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4);
        Job clean = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4)) {
      float[] scaled = job.dy.get(1).clone();
      scaled[2] = Float.POSITIVE_INFINITY;
      job.dyTensors.get(1).copyFromHost(scaled);
      job.step();
      assertThat(job.layer.betaGradient(group.replica(1)).copyToHost()[2]).isInfinite();
      assertThat(job.layer.betaGradient(group.replica(1)).copyToHost()[1]).isFinite();
      job.dyTensors.get(1).copyFromHost(job.dy.get(1));
      job.step();
      clean.step();
      clean.step();
      assertThat(bits(job.results())).isEqualTo(bits(clean.results()));
    }
  }

  // ---------------------------------------------------------------------------------------------
  // moving statistics

  @Tag("several")
  @Test
  void cumulativeAverage_isTheMeanOfAllSteps_andCanBeResumed() {
    try (ReplicaGroup group = group(2);
        Job first = new Job(group, layerOf(group).cumulativeAverage().build(), 3, 0.5, 7, 4);
        Job second = new Job(group, layerOf(group).momentum(0).build(), 4, 2, 7, 4)) {
      Replica replica = group.replica(0);
      first.step();
      float[] one = first.layer.movingMean(replica).copyToHost();
      second.step();
      float[] two = second.layer.movingMean(replica).copyToHost();
      first.layer.forward(second.xTensors, second.y, true).close();
      float[] mean = first.layer.movingMean(replica).copyToHost();
      for (int c = 0; c < CHANNELS; c++) {
        assertThat(mean[c]).isCloseTo((one[c] + two[c]) / 2, within(1e-6f));
      }
      assertThat(first.layer.countedSteps()).isEqualTo(2);
      first.layer.setCountedSteps(0);
      first.layer.forward(second.xTensors, second.y, true).close();
      assertThat(bits(first.layer.movingMean(replica)))
          .isEqualTo(bits(second.layer.movingMean(replica)));
      assertIllegal(() -> first.layer.setCountedSteps(-1), "-1");
    }
  }

  @Test
  void foldedScaleAndShift_areInference() {
    try (ReplicaGroup group = group(1);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 9)) {
      job.drawParameters(5, new Oracle(CHANNELS, 0.8, 1e-3));
      job.step();
      job.layer.infer(job.xTensors, job.y);
      SyncBatchNormalization.Folded folded = job.layer.fold(group.replica(0));
      float[] y = job.y.get(0).copyToHost();
      for (int i = 0; i < y.length; i++) {
        double expected =
            job.x.get(0)[i] * folded.scale()[i % CHANNELS] + folded.shift()[i % CHANNELS];
        assertThat((double) y[i]).isCloseTo(expected, within(2e-6));
      }
    }
  }
}
