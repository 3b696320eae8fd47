package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.Adjustment;
import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.nn.Initializers;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** T44 to T59: batch renormalization and adjustment. */
abstract class RenormCasesContract extends SpecificationCases {

  // ------------------------------------------------------------------------------------------------- renorm

  private static Options renorm(double momentum, double renormMomentum) {
    return options(
        o -> {
          o.renorm = true;
          o.momentum = momentum;
          o.renormMomentum = renormMomentum;
        });
  }

  private static Options clipped(Options options, Double rmax, Double rmin, Double dmax) {
    options.rmax = rmax;
    options.rmin = rmin;
    options.dmax = dmax;
    return options;
  }

  @Test
  void t44_renorm_fiveSteps() {
    try (TestedLayer layer = layer(1, clipped(renorm(.99, .8), 1.1, .9, .1), 3)) {
      layer.set("gamma", 2, 2, 2);
      layer.set("beta", 3, 3, 3);
      Map<String, double[]> got = Map.of();
      for (int t = 0; t < 5; t++) {
        got = layer.step(Step.training(Values.g(t, 4, 3)));
      }
      assertIs(got, "renorm_mean of rank 0", .354487273, .301687273, .280407273);
      assertIs(got, "renorm_stddev of rank 0", .420135525, .471419509, .493161553);
      assertIs(got, "moving_stddev of rank 0", .958656525, .961704272, .961770023);
      assertIs(got, "moving_variance of rank 0", .918022332, .923875108, .924001578);
      assertStarts(got, "y of rank 0", 5.50592425, 5.37921209, 1.61445842);
      got = layer.step(Step.inference(Values.g(9, 4, 3)));
      assertStarts(got, "y of rank 0", 3.13620212, 4.46571664, 3.7157671);
    }
  }

  @Tag("several")
  @Test
  void t45_renorm_onTwoReplicas() {
    try (TestedLayer layer = layer(2, renorm(.9, .8), 3)) {
      Map<String, double[]> got = Map.of();
      for (int t = 0; t < 4; t++) {
        got = layer.step(Step.training(Values.g(t, 3, 3), Values.g(t + 1, 1, 3)));
      }
      for (int rank = 0; rank < 2; rank++) {
        assertIs(got, "moving_variance of rank " + rank, .555244056, .570366576, .538075544);
        assertIs(got, "renorm_mean of rank " + rank, .3144, .257309091, .222218182);
      }
    }
  }

  @Test
  void t46_renorm_firstStepWithTheDefaults_changesNothing() {
    try (TestedLayer layer = layer(1, options(o -> o.renorm = true), 3)) {
      Values x = Values.g(0, 4, 3);
      assertIs(layer.step(Step.training(x)), "y of rank 0", x.data());
      assertThat(layer.layer.variables(layer.group.replica(0)).keySet())
          .containsExactly(
              "gamma",
              "beta",
              "moving_mean",
              "moving_variance",
              "moving_stddev",
              "renorm_mean",
              "renorm_stddev");
    }
  }

  @Test
  void t47_renorm_ofSameMomenta_trainsOnWhatItInfers() {
    try (TestedLayer layer = layer(1, renorm(.6, .6), 3)) {
      for (int t = 0; t < 4; t++) {
        Values x = Values.g(t, 4, 3);
        double[] inferred = layer.step(Step.inference(x)).get("y of rank 0");
        double tolerance = t == 0 ? 1.5e-3 : TOLERANCE; // 1.5 epsilon
        assertIsWithin(tolerance, layer.step(Step.training(x)), "y of rank 0", inferred);
      }
    }
  }

  /** Here an empty replica's state is updated like the others'; in tf.keras it stays. */
  @Tag("several")
  @Test
  void t48_renorm_emptyReplica_isUpdatedLikeTheOthers() {
    try (TestedLayer layer = layer(3, renorm(.9, .8), 3)) {
      Map<String, double[]> got =
          layer.step(Step.training(Values.g(0, 3, 3), Values.g(2, 1, 3), empty(3)));
      for (String name :
          List.of(
              "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")) {
        double[] want = got.get(name + " of rank 0");
        assertThat(want[0]).as(name).isNotIn(0.0, 1.0);
        assertThat(got.get(name + " of rank 2")).as(name).containsExactly(want);
      }
    }
  }

  private TestedLayer renormFromVarianceFour() {
    return layer(
        1,
        DType.FLOAT32,
        clipped(renorm(.5, .5), .3, null, null),
        builder ->
            builder
                .movingMeanInitializer(Initializers.constant(.5))
                .movingVarianceInitializer(Initializers.constant(4)),
        3);
  }

  @Test
  void t49_renorm_startsWithTheInitializers() {
    try (TestedLayer layer = renormFromVarianceFour()) {
      assertThat(layer.get(0, "moving_stddev")).containsOnly(2);
      assertThat(layer.get(0, "renorm_stddev")).containsOnly(2);
      assertThat(layer.get(0, "renorm_mean")).containsOnly(.5);
      Map<String, double[]> got = layer.step(Step.training(Values.g(0, 4, 3)));
      assertStarts(got, "y of rank 0", -.25, .0681818182, -.113636364);
      assertIs(got, "moving_variance of rank 0", 1.39311587, 1.10827783, 1.10827783);
    }
  }

  @Test
  void t50_renorm_overwritesTheMovingVariance() {
    try (TestedLayer layer = layer(1, renorm(.5, .99), 3)) {
      layer.set("moving_variance", 9, 9, 9);
      Map<String, double[]> got = layer.step(Step.training(Values.g(0, 4, 3)));
      assertIsWithin(5e-5, got, "moving_variance of rank 0", .4624, .3051, .3051); // 4 digits given
      double[] stddev = got.get("moving_stddev of rank 0");
      assertIs(
          got, "moving_variance of rank 0", Arrays.stream(stddev).map(s -> s * s - 1e-3).toArray());
    }
  }

  @Test
  void t51_renormGradient_isThatOfAScaledGamma() {
    Values x = Values.g(0, 4, 3);
    Step step = Step.training(x).dy(Values.w(4, 3));
    try (TestedLayer renormed = layer(1, renorm(.9, .9), 3);
        TestedLayer plain = layer(1, momentum(0), 3)) {
      renormed.set("renorm_stddev", .5, .25, 2);
      plain.step(Step.training(x));
      double[] variance = plain.get(0, "moving_variance");
      double[] scaled = new double[3];
      for (int c = 0; c < 3; c++) {
        scaled[c] = Math.sqrt(variance[c] + 1e-3) / of(.5, .25, 2)[c]; // r, with gamma 1
      }
      plain.set("gamma", scaled);
      assertIs(renormed.step(step), "dx of rank 0", plain.step(step).get("dx of rank 0"));
    }
  }

  /** Here it is refused without renorm too. */
  @ParameterizedTest
  @ValueSource(strings = {"true", "false"})
  void t52_unknownClippingKey_isRefused(String renorm) {
    try (ReplicaGroup group = group(1)) {
      assertRefused(
          () -> fromConfig(group, "{'renorm': %s, 'renorm_clipping': {'x': 1}}".formatted(renorm)),
          "renorm_clipping",
          "x");
    }
  }

  /** As tf.keras takes them; Keras 3 refuses them. */
  @Test
  void t53_contradictingLimits_areTakenInOrder() {
    Values x = Values.g(0, 4, 3);
    try (TestedLayer plain = layer(1, momentum(0), 3);
        TestedLayer ofR = layer(1, clipped(renorm(.9, .9), .5, 2.0, 0.0), 3);
        TestedLayer ofD = layer(1, clipped(renorm(.9, .9), 1.0, 1.0, -1.0), 3)) {
      double[] xhat = plain.step(Step.training(x)).get("y of rank 0");
      assertIs(
          ofR.step(Step.training(x)),
          "y of rank 0",
          Arrays.stream(xhat).map(value -> .5 * value).toArray());
      assertIs(
          ofD.step(Step.training(x)),
          "y of rank 0",
          Arrays.stream(xhat).map(value -> value - 1).toArray());
    }
  }

  @Test
  void t54_renorm_ofAnyState() {
    Options options = renorm(.9, .8);
    Map<String, double[]> state =
        Map.of(
            "moving_mean", of(.5, -1, 2),
            "moving_variance", of(1.5, 2, .25),
            "moving_stddev", of(1.25, 1.5, .5),
            "renorm_mean", of(4, 2, 3),
            "renorm_stddev", of(1.5, 4, 1.25));
    PlainLayer plain = new PlainLayer(options, 3, 1);
    plain.variables.replaceAll((name, ones) -> state.getOrDefault(name, ones).clone());
    Step step = Step.training(new Values(of(4, 6, 2, 8, -2, 5, 6, 4, 3), 3, 3));
    try (TestedLayer layer = layer(1, options, 3)) {
      state.forEach(layer::set);
      Map<String, double[]> got = layer.step(step);
      plain.step(step).forEach((name, want) -> assertIs(got, name, want.values()));
      double[] stddev = got.get("moving_stddev of rank 0");
      assertIs(
          got, "moving_variance of rank 0", Arrays.stream(stddev).map(s -> s * s - 1e-3).toArray());
    }
  }

  // ------------------------------------------------------------------------------------------------- adjustment

  private static Step adjusted(Values x) {
    Step step = Step.training(x);
    step.adjustScale = List.of(new Values(of(.5, 1.5, 2), 3));
    step.adjustBias = List.of(new Values(of(.1, -.1, .2), 3));
    return step;
  }

  private TestedLayer adjustedLayer(Options options) {
    options.adjusted = true;
    TestedLayer layer = layer(1, options, 3);
    layer.set("gamma", 2, 2, 2);
    layer.set("beta", 3, 3, 3);
    return layer;
  }

  /** Here it works, as the base class documents; TF 2.4 ignores it. No configuration has it. */
  @Test
  void t55_adjustment_works() {
    Values x = Values.g(0, 4, 3);
    try (TestedLayer layer = adjustedLayer(new Options());
        TestedLayer plain = layer(1, new Options(), 3)) {
      double[] xhat = plain.step(Step.training(x)).get("y of rank 0");
      double[] want = new double[12];
      for (int i = 0; i < 12; i++) {
        want[i] = 2 * (xhat[i] * of(.5, 1.5, 2)[i % 3] + of(.1, -.1, .2)[i % 3]) + 3;
      }
      assertIs(layer.step(adjusted(x)), "y of rank 0", want);
      assertThat(layer.layer.getConfig()).doesNotContain("adjustment");
    }
  }

  @Test
  void t56_adjustment_ofTrainingAlone() {
    Values x = Values.g(0, 4, 3);
    try (TestedLayer layer = adjustedLayer(new Options())) {
      Map<String, double[]> got = layer.step(adjusted(x));
      assertStarts(got, "y of rank 0", 1.5023098, 6.64320709, 8.52427611);
      double[] folded = layer.layer.fold(layer.group.replica(0)).scale();
      double[] shift = layer.layer.fold(layer.group.replica(0)).shift();
      assertIs(
          layer.step(Step.inference(x)),
          "y of rank 0",
          IntStream.range(0, 12)
              .mapToDouble(i -> x.data()[i] * folded[i % 3] + shift[i % 3])
              .toArray());
    }
  }

  @Test
  void t57_adjustment_afterRenorm() {
    Options options = clipped(renorm(.99, .99), 1.1, .9, .1);
    try (TestedLayer layer = adjustedLayer(options)) {
      Map<String, double[]> got = layer.step(adjusted(Values.g(0, 4, 3)));
      assertStarts(got, "y of rank 0", 1.77207882, 6.55888638, 8.4118485);
    }
  }

  private TestedLayer layer(Adjustment adjustment) {
    return layer(builder -> builder.adjustment(adjustment), 3);
  }

  @Test
  void t58_adjustment_isGivenTheShape_inTrainingAlone() {
    List<long[]> shapes = new ArrayList<>();
    Adjustment one =
        (replica, shape) -> {
          shapes.add(shape);
          DeviceTensor ones = Placement.rowMajor(replica, DType.FLOAT32, 1).write(1).tensor;
          return new Adjustment.Factors(ones, ones);
        };
    try (TestedLayer layer = layer(one)) {
      layer.step(Step.inference(Values.g(0, 4, 3)));
      assertThat(shapes).isEmpty();
      layer.step(Step.training(Values.g(0, 4, 3)));
      assertThat(shapes).hasSize(1).first().isEqualTo(new long[] {4, 3});
    }
  }

  @Test
  void t59_adjustmentWithoutFactors_isRefused() {
    Step step = Step.training(Values.g(0, 4, 3));
    try (TestedLayer none = layer((replica, shape) -> null);
        TestedLayer half = layer((replica, shape) -> new Adjustment.Factors(null, null))) {
      assertRefused(() -> none.step(step), "adjustment");
      assertRefused(() -> half.step(step), "adjustment");
    }
  }
}
