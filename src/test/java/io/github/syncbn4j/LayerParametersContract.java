package io.github.syncbn4j;

import static io.github.syncbn4j.Job.bits;
import static io.github.syncbn4j.Refusals.assertIllegal;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.github.syncbn4j.nn.Constraints;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizers;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The layer's weights, their first values, gradients, penalties and constraints. */
@Timeout(120)
abstract class LayerParametersContract extends SixChannels {
  // ------------------------------------------------------------------------------- weights,
  // penalties, constraints

  @Tag("several")
  @Test
  void weights_areWrittenToAll_andReadAsTheMean() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 2)
                .weights(List.of(row(1, 2), row(3, 4), row(5, 6), row(7, 8)))
                .build()) {
      for (Replica replica : group.replicas()) {
        assertThat(layer.variables(replica).keySet())
            .containsExactly("gamma", "beta", "moving_mean", "moving_variance");
        assertThat(layer.beta(replica).copyToHost()).containsExactly(3, 4);
        assertThat(layer.movingVariance(replica).copyToHost()).containsExactly(7, 8);
      }
      layer.movingMean(group.replica(1)).copyFromHost(7f, 10f);
      assertThat(layer.getWeights().get(2)).containsExactly(6, 8);
      assertIllegal(() -> layer.setWeights(List.of(row(1, 2))), "1 weights for 4 variables");
      assertIllegal(
          () -> layer.setWeights(List.of(row(1, 2), row(1), row(1, 2), row(1, 2))),
          "beta has 1 values");
    }
  }

  private static double[] row(double... values) {
    return values;
  }

  @Tag("several")
  @Test
  void penalties_areInTheLossOnce_andInTheSummedGradientsOnce() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 3)
                .gammaRegularizer(Regularizers.l2(0.5))
                .betaRegularizer(Regularizers.l1(0.25))
                .betaInitializer(Initializers.constant(-1))
                .build()) {
      assertThat(layer.losses()).containsExactly(1.5, 0.75);
      layer.addRegularizationGradients();
      layer.allReduceGradients();
      for (Replica replica : group.replicas()) {
        assertThat(layer.gammaGradient(replica).copyToHost()).containsOnly(1f);
        assertThat(layer.betaGradient(replica).copyToHost()).containsOnly(-0.25f);
      }
    }
  }

  @Tag("several")
  @Test
  void constraints_areAppliedWhenAsked_onEveryReplica() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 2)
                .gammaConstraint(Constraints.maxNorm(2))
                .betaConstraint(Constraints.nonNeg())
                .weights(List.of(row(3, 4), row(-1, 1), row(0, 0), row(1, 1)))
                .build()) {
      assertThat(layer.gamma(group.replica(0)).copyToHost()).containsExactly(3, 4);
      layer.applyConstraints();
      for (Replica replica : group.replicas()) {
        assertThat(layer.gamma(replica).copyToHost())
            .containsExactly(new float[] {1.2f, 1.6f}, within(1e-6f));
        assertThat(layer.beta(replica).copyToHost()).containsExactly(-0f, 1f);
      }
    }
  }

  @Test
  void closedLayer_isRefused() {
    try (ReplicaGroup group = group(1)) {
      SyncBatchNormalization layer = layerOf(group).build();
      layer.close();
      for (Runnable call :
          List.<Runnable>of(
              layer::countedSteps,
              () -> layer.setCountedSteps(1),
              layer::getWeights,
              layer::applyConstraints,
              layer::allReduceGradients,
              () -> layer.fold(group.replica(0)))) {
        assertThatThrownBy(call::run)
            .isInstanceOf(IllegalStateException.class)
            .hasMessage("the layer is closed");
      }
    }
  }

  @Test
  void renormOfTheUnbiasedVariance_isRefused() {
    try (ReplicaGroup group = group(1)) {
      assertIllegal(
          () -> layerOf(group).renorm(true).unbiasedRunningVariance(true).build(),
          "not with the unbiased variance");
    }
  }

  /** Initial values are drawn once and are the same on every replica. */
  @Tag("several")
  @Test
  void randomInitialValues_areTheSameOnAllReplicas() {
    try (ReplicaGroup group = group(2);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 32)
                .gammaInitializer(Initializers.randomNormal())
                .betaInitializer(null)
                .build()) {
      float[] beta = layer.beta(group.replica(0)).copyToHost();
      assertThat(beta[0]).isNotZero().isBetween(-0.31f, 0.31f); // glorot_uniform: sqrt(6 / 64)
      assertThat(layer.beta(group.replica(1)).copyToHost()).isEqualTo(beta);
      assertThat(bits(layer.gamma(group.replica(1))))
          .isEqualTo(bits(layer.gamma(group.replica(0))));
      assertThat(layer.gamma(group.replica(0)).copyToHost()).doesNotHaveDuplicates();
    }
  }

  // ------------------------------------------------------------------------------------------
  // gradients of the batch

  @Tag("several")
  @Test
  void gradients_areLocal_untilTheyAreAllReduced() throws Exception {
    try (ReplicaGroup group = group(2);
        Job job = new Job(group, layerOf(group).build(), 3, 0.5, 7, 4)) {
      job.step();
      float[] first = job.layer.gammaGradient(group.replica(0)).copyToHost();
      float[] second = job.layer.gammaGradient(group.replica(1)).copyToHost();
      float[] sums = new float[CHANNELS];
      for (int c = 0; c < CHANNELS; c++) {
        sums[c] = first[c] + second[c];
      }
      assertThat(first).isNotEqualTo(second);
      job.layer.allReduceGradients();
      for (Replica replica : group.replicas()) {
        assertThat(job.layer.gammaGradient(replica).copyToHost())
            .containsExactly(sums, within(1e-6f));
      }
      job.step();
      job.onThreads(replica -> job.layer.allReduceGradients(replica));
      assertThat(job.layer.gammaGradient(group.replica(1)).copyToHost())
          .containsExactly(sums, within(1e-6f));
    }
  }
}
