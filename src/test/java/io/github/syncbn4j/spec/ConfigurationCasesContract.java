package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.nn.Constraints;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizers;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** T60 to T83: refusals, frozen layers, parameters, masks, given state. */
abstract class ConfigurationCasesContract extends SpecificationCases {

  // ------------------------------------------------------------------------------------------------- refusals

  @ParameterizedTest
  @ValueSource(strings = {"4", "-5", "[1, 4]", "[-5, 1]", "[1, 2, 1]", "[1, -3]"})
  void t60_axisThatIsNotThere_orTwice_isRefused(String axis) {
    try (ReplicaGroup group = group(1)) {
      assertRefused(() -> fromConfig(group, "{'axis': " + axis + "}").build(2, 3, 4, 5), "axis");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"1.0", "null", "'1'", "{'1': 1}", "true", "[]", "[null]"})
  void t61_axisThatIsNoInteger_isRefused(String axis) {
    try (ReplicaGroup group = group(1)) {
      assertRefused(() -> fromConfig(group, "{'axis': " + axis + "}"), "axis");
    }
  }

  @Test
  void t62_shapeThatIsUnknownWhereItMatters_isRefused() {
    try (ReplicaGroup group = group(1)) {
      assertRefused(
          () -> SyncBatchNormalization.builder(group).build(-1, 3, -1), "axis", "[-1, 3, -1]");
      assertRefused(() -> SyncBatchNormalization.builder(group).build(new long[0]), "rank");
      assertThatThrownBy(() -> SyncBatchNormalization.builder(group).build())
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("shape");
    }
  }

  @Test
  void t63_inputThatDoesNotFit_isRefused() {
    try (TestedLayer layer = layer(1, new Options(), 3)) {
      assertRefused(() -> layer.step(Step.training(Values.g(0, 2, 4))), "4 channels", "has 3");
      assertRefused(() -> layer.step(Step.training(Values.g(0, 2, 2, 3))), "rank 2", "not 3");
      layer.step(Step.training(Values.g(0, 2, 3)));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"'fused': true", "'virtual_batch_size': 2", "'foo': 1"})
  void t64_argumentsOfOtherLayers_areRefused(String argument) {
    try (ReplicaGroup group = group(1)) {
      assertRefused(() -> fromConfig(group, "{" + argument + "}"), argument.split("'")[1]);
    }
  }

  // ------------------------------------------------------------------------------------------------- frozen layers

  @Test
  void t65_frozenLayer_infers_andTrainsAgain() {
    try (TestedLayer layer =
        layer(1, DType.FLOAT32, momentum(.5), builder -> builder.trainable(false), 2)) {
      assertThat(layer.layer.variables(layer.group.replica(0)).keySet())
          .containsExactly("gamma", "beta", "moving_mean", "moving_variance");
      Map<String, double[]> got = layer.step(Step.training(ROWS).dy(ROWS));
      assertStarts(got, "y of rank 0", .9995003747, 9.995003747);
      assertMoving(got, 0, of(0, 0), of(1, 1));
      assertThat(got.get("gamma gradient of rank 0")).containsOnly(0);
      layer.layer.setTrainable(true);
      assertMoving(layer.step(Step.training(ROWS)), 0, of(1.5, 15), of(2.25, 175.5));
    }
  }

  @Test
  void t66_frozenAfterTraining_trainsOnWhatItEvaluates() {
    try (TestedLayer layer = layer(1, momentum(.5), 2)) {
      layer.step(Step.training(ROWS));
      layer.layer.setTrainable(false);
      double[] evaluated = layer.step(Step.inference(ROWS)).get("y of rank 0");
      assertThat(layer.step(Step.training(ROWS)).get("y of rank 0")).containsExactly(evaluated);
    }
  }

  // ------------------------------------------------------------------------------------------------- parameters

  @Test
  void t68_losses_alsoOfAFrozenLayer() {
    UnaryOperator<SyncBatchNormalization.Builder> penalties =
        builder ->
            builder
                .gammaRegularizer(Regularizers.get("l2"))
                .betaRegularizer(Regularizers.l1(.5))
                .betaInitializer(Initializers.ones());
    try (TestedLayer layer = layer(penalties, 3)) {
      for (boolean trainable : new boolean[] {true, false}) {
        layer.layer.setTrainable(trainable);
        List<Double> losses = layer.layer.losses();
        assertThat(losses).hasSize(2);
        assertThat(losses.get(0)).isCloseTo(.03, within(1e-8));
        assertThat(losses.get(1)).isCloseTo(1.5, within(1e-8));
      }
    }
  }

  @Test
  void t69_regularizers() {
    Map<String, Double> want = Map.of("l1", .06, "l2", .14, "l1_l2", .20, "L1L2", .0);
    want.forEach(
        (name, loss) -> {
          try (TestedLayer layer =
              layer(builder -> builder.gammaRegularizer(Regularizers.get(name)), 3)) {
            layer.set("gamma", 1, -2, 3);
            assertThat(layer.layer.losses()).as(name).hasSize(1);
            assertThat(layer.layer.losses().get(0)).as(name).isCloseTo(loss, within(1e-8));
          }
        });
  }

  /** Gamma 2 and beta -0.5 after one step of gradient descent and the constraints. */
  private void assertConstrained(String constraint, double[] gamma, double[] beta) {
    UnaryOperator<SyncBatchNormalization.Builder> constrained =
        builder ->
            builder
                .gammaInitializer(Initializers.constant(2))
                .betaInitializer(Initializers.constant(-.5))
                .gammaConstraint(Constraints.get(constraint))
                .betaConstraint(Constraints.get(constraint));
    try (TestedLayer layer = layer(constrained, 3)) {
      Replica replica = layer.group.replica(0);
      assertThat(layer.get(0, "gamma")).as("untouched").containsOnly(2);
      layer.layer.gammaGradient(replica).copyFromHost(1, 30, -3);
      layer.layer.betaGradient(replica).copyFromHost(-1, -6, 2);
      descend(layer, replica, .1);
      layer.layer.applyConstraints();
      assertThat(layer.get(0, "gamma")).as(constraint).containsExactly(gamma, within(1e-6));
      assertThat(layer.get(0, "beta")).as(constraint).containsExactly(beta, within(1e-6));
    }
  }

  @Test
  void t70_constraints_afterAnUpdate() {
    assertConstrained("non_neg", of(1.9, -0.0, 2.3), of(-0.0, .1, -0.0));
    assertConstrained(
        "max_norm", of(1.2077193, -.6356418, 1.4619761), of(-.4, .1, -.7)); // beta's norm is < 2
    assertConstrained(
        "unit_norm", of(.6038597, -.3178209, .7309880), of(-.4923659, .1230915, -.8616403));
  }

  @Test
  void t71_maxNorm_ofSeveralAxes_isOfEachElement() {
    Options options = options(o -> o.axis = new int[] {1, 3});
    try (TestedLayer layer =
        layer(
            1,
            DType.FLOAT32,
            options,
            builder -> builder.gammaConstraint(Constraints.maxNorm(2)),
            3,
            4,
            1)) {
      layer.set("gamma", 3, -4, 1);
      layer.layer.applyConstraints();
      assertThat(layer.get(0, "gamma")).containsExactly(of(2, -2, 1), within(1e-6));
    }
  }

  @Tag("several")
  @Test
  void t72_noInitializer_isGlorotUniform_theSameOnAllReplicas() {
    try (TestedLayer layer =
        layer(2, DType.FLOAT32, new Options(), builder -> builder.gammaInitializer(null), 600)) {
      double[] gamma = layer.get(0, "gamma");
      double limit = Math.sqrt(6.0 / (600 + 600));
      assertThat(Arrays.stream(gamma).map(Math::abs).max().getAsDouble())
          .isBetween(.9 * limit, limit * (1 + 1e-6));
      assertThat(layer.get(1, "gamma")).containsExactly(gamma);
    }
  }

  @Test
  void t73_initializerOfMatrices_isRefused() {
    try (ReplicaGroup group = group(1)) {
      assertRefused(
          () ->
              SyncBatchNormalization.builder(group, 3)
                  .gammaInitializer(Initializers.get("orthogonal"))
                  .build(),
          "dimension");
    }
  }

  @Test
  void t74_configuration_roundTrips() {
    try (ReplicaGroup group = group(1)) {
      SyncBatchNormalization open = SyncBatchNormalization.builder(group, 3).name("bn").build();
      assertThat(open.getConfig()).contains("\"axis\":-1");
      Matcher keys =
          Pattern.compile("[{,]\"(\\w+)\":")
              .matcher(open.getConfig().replaceAll("\\{\"class_name\"[^}]*\\}\\}", "0"));
      assertThat(keys.results().map(match -> match.group(1)))
          .containsExactly(
              "name",
              "trainable",
              "dtype",
              "axis",
              "momentum",
              "epsilon",
              "center",
              "scale",
              "beta_initializer",
              "gamma_initializer",
              "moving_mean_initializer",
              "moving_variance_initializer",
              "beta_regularizer",
              "gamma_regularizer",
              "beta_constraint",
              "gamma_constraint");
      assertThat(SyncBatchNormalization.fromConfig(group, open.getConfig()).build(2, 3).getConfig())
          .isEqualTo(open.getConfig().replace("\"axis\":-1", "\"axis\":[1]"));
    }
  }

  // ------------------------------------------------------------------------------------------------- masks

  /** Examples of 4 places, of which a mask leaves the first two. */
  private static Values examples(int count) {
    return Values.of(k -> of(1, 5, 2, 5, 0, 0, 0, 0)[k % 8], count, 4, 2);
  }

  private static Values firstTwo(int count) {
    return Values.of(k -> k % 4 < 2 ? 1 : 0, count, 4);
  }

  @Test
  void t75_mask_leavesOutOfTheStatisticsAlone() {
    try (TestedLayer layer = layer(1, momentum(0), 4, 2)) {
      Map<String, double[]> got = layer.step(Step.training(examples(10)).mask(firstTwo(10)));
      assertMoving(got, 0, of(1.5, 5), of(.25, 0));
      double[] masked = Arrays.copyOfRange(got.get("y of rank 0"), 4, 6);
      assertThat(masked).containsExactly(of(-2.994018, -158.11388), within(1e-4));
    }
  }

  @Tag("several")
  @Test
  void t76_mask_ofOneReplica() {
    try (TestedLayer layer = layer(2, momentum(0), 4, 2)) {
      Step step = Step.training(examples(2), examples(1));
      step.mask = Arrays.asList(null, firstTwo(1));
      Map<String, double[]> got = layer.step(step);
      for (int rank = 0; rank < 2; rank++) {
        assertMoving(got, rank, of(.9, 3), of(.69, 6));
      }
    }
  }

  /** Here a batch of which nothing counts changes no state; in tf.keras the variance halves. */
  @Test
  void t77_everythingMasked_changesNoState() {
    try (TestedLayer layer = layer(1, momentum(.5), 1)) {
      Map<String, double[]> got =
          layer.step(Step.training(column(3, 3)).mask(new Values(of(0, 0), 2)));
      assertIsWithin(1e-4, got, "y of rank 0", 94.868324, 94.868324);
      assertThat(got.get("moving_mean of rank 0")).containsExactly(0);
      assertThat(got.get("moving_variance of rank 0")).containsExactly(1);
    }
  }

  @Test
  void t78_maskOfAnotherRank_isRefused() {
    try (TestedLayer layer = layer(1, momentum(0), 4, 2)) {
      for (long[] shape : new long[][] {{1}, {1, 4, 2}, {4}, {1, 3}}) {
        Step step = Step.training(examples(1)).mask(Values.of(k -> 1, shape));
        assertRefused(() -> layer.step(step), "mask", Arrays.toString(shape));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------- the rest

  @Test
  void t79_largeMovingValuesOfAFloat16Layer_areKept() {
    try (TestedLayer layer = layer(DType.FLOAT16, .99, 1)) {
      layer.set("moving_mean", 70000);
      layer.set("moving_variance", 70000);
      layer.step(Step.inference(column(1, 2)));
      assertThat(layer.get(0, "moving_mean")).containsExactly(70000);
      assertThat(layer.get(0, "moving_variance")).containsExactly(70000);
    }
  }

  @Tag("several")
  @Test
  void t80_momentsOfTheSameOnTwoReplicas() {
    for (DType dtype : List.of(DType.FLOAT16, DType.FLOAT32)) {
      try (TestedLayer layer = layer(2, dtype, momentum(0), UnaryOperator.identity(), 1)) {
        Values x = column(5, 9, 1, 3);
        Map<String, double[]> got = layer.step(Step.training(x, x));
        assertMoving(got, 1, of(4.5), of(8.75));
      }
    }
  }

  @Test
  void t81_inferenceWithGivenStatistics() {
    try (TestedLayer layer = layer(1, options(o -> o.epsilon = 1e-7), 3)) {
      layer.set("gamma", 10, 20, 30);
      layer.set("beta", 5, 10, 15);
      layer.set("moving_mean", .2, .3, .4);
      layer.set("moving_variance", 4, 16, 64);
      Values x = new Values(of(.1, .2, .3, .4, .5, .6), 2, 3);
      assertIs(layer.step(Step.inference(x)), "y of rank 0", 4.5, 9.5, 14.625, 6, 11, 15.75);
    }
  }

  @Test
  void t82_emptyBatch_changesNoState() {
    try (TestedLayer layer = layer(1, momentum(.5), 2)) {
      Map<String, double[]> got = layer.step(Step.training(empty(2)));
      assertThat(got.get("moving_mean of rank 0")).containsOnly(0);
      assertThat(got.get("moving_variance of rank 0")).containsOnly(1);
      assertThat(layer.layer.countedSteps()).isZero();
    }
  }

  @Test
  void t83_givenWeights_areInKerasOrder() {
    List<double[]> weights = List.of(of(1, 2), of(3, 4), of(5, 6), of(7, 8));
    try (TestedLayer layer = layer(builder -> builder.weights(weights), 2)) {
      assertThat(layer.get(0, "gamma")).containsExactly(1, 2);
      assertThat(layer.get(0, "beta")).containsExactly(3, 4);
      assertThat(layer.get(0, "moving_mean")).containsExactly(5, 6);
      assertThat(layer.get(0, "moving_variance")).containsExactly(7, 8);
    }
  }
}
