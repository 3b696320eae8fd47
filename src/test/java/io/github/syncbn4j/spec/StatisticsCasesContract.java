package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.nn.Initializers;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** T01 to T43: statistics, shapes, the exchange between replicas, hard numbers, dtypes. */
abstract class StatisticsCasesContract extends SpecificationCases {
  private static final Values FROM_0_TO_2 = new Values(new double[] {0, 2}, 2, 1);

  // ------------------------------------------------------------------------------------------------- statistics

  @Test
  void t01_oneReplica() {
    try (TestedLayer layer = layer(1, momentum(0.5), 2)) {
      Map<String, double[]> got = layer.step(Step.training(ROWS));
      assertStarts(got, "y of rank 0", -1.06889228, -1.06904344);
      assertThat(got.get("y of rank 0")[6]).isCloseTo(1.60333842, within(TOLERANCE));
      assertThat(got.get("y of rank 0")[7]).isCloseTo(1.60356516, within(TOLERANCE));
      assertMoving(got, 0, of(1.5, 15), of(2.25, 175.5));
    }
  }

  @Tag("several")
  @Test
  void t02_sameRowsOnTwoReplicas_giveTheSame() {
    try (TestedLayer layer = layer(2, momentum(0.5), 2)) {
      Map<String, double[]> got = layer.step(Step.training(ROWS.rows(0, 3), ROWS.rows(3, 4)));
      assertStarts(got, "y of rank 0", -1.06889228, -1.06904344);
      assertIs(got, "y of rank 1", 1.60333842, 1.60356516);
      assertMoving(got, 0, of(1.5, 15), of(2.25, 175.5));
      assertMoving(got, 1, of(1.5, 15), of(2.25, 175.5));
    }
  }

  /** Here the empty replica's statistics are updated like the others'; in tf.keras they stay. */
  @Tag("several")
  @Test
  void t03_emptyReplica_isUpdatedLikeTheOthers() {
    try (TestedLayer layer = layer(2, momentum(0.5), 2)) {
      Map<String, double[]> got = layer.step(Step.training(ROWS, empty(2)));
      assertStarts(got, "y of rank 0", -1.06889228, -1.06904344);
      assertThat(got.get("y of rank 1")).isEmpty();
      assertMoving(got, 0, of(1.5, 15), of(2.25, 175.5));
      assertMoving(got, 1, of(1.5, 15), of(2.25, 175.5));
      assertThat(layer.layer.getWeights().get(2)).containsExactly(of(1.5, 15), within(TOLERANCE));
    }
  }

  @Tag("several")
  @Test
  void t04_noRowsAnywhere_changeNoState() {
    try (TestedLayer layer = layer(2, momentum(0.5), 2)) {
      Map<String, double[]> got =
          layer.step(Step.training(empty(2), empty(2)).dy(empty(2), empty(2)));
      for (int rank = 0; rank < 2; rank++) {
        assertThat(got.get("y of rank " + rank)).isEmpty();
        assertThat(got.get("moving_mean of rank " + rank)).containsOnly(0);
        assertThat(got.get("moving_variance of rank " + rank)).containsOnly(1);
        assertThat(got.get("gamma gradient of rank " + rank)).containsOnly(0);
        assertThat(got.get("beta gradient of rank " + rank)).containsOnly(0);
      }
    }
  }

  @Tag("several")
  @Test
  void t05_oneRowEach() {
    try (TestedLayer layer = layer(2, momentum(0.5), 2)) {
      Map<String, double[]> got = layer.step(Step.training(row(1, 5), row(3, -5)));
      assertIs(got, "y of rank 0", -0.999500375, 0.999980001);
      assertIs(got, "y of rank 1", 0.999500375, -0.999980001);
      assertMoving(got, 1, of(1, 0), of(1, 13));
    }
  }

  @Test
  void t06_oneRow_normalizesToZero() {
    try (TestedLayer layer = layer(1, momentum(0.5), 2)) {
      Map<String, double[]> got = layer.step(Step.training(row(3, -4)));
      assertIs(got, "y of rank 0", 0, 0);
      assertMoving(got, 0, of(1.5, -2), of(0.5, 0.5));
    }
  }

  /** The inputs and the parameters of T07 and T08, split. */
  private Map<String, double[]> stepOfEightRows(Options options, int... ends) {
    Values x = Values.g(0, 8, 3);
    List<Values> parts = new ArrayList<>();
    int from = 0;
    for (int to : ends) {
      parts.add(x.rows(from, to));
      from = to;
    }
    Step step = new Step(true, parts);
    step.dy = parts.stream().map(part -> Values.w(part.shape())).toList();
    try (TestedLayer layer = layer(ends.length, options, 3)) {
      layer.set("gamma", 1.5, 1.5, 1.5);
      layer.set("beta", 0.25, 0.25, 0.25);
      return layer.step(step);
    }
  }

  @Tag("several")
  @Test
  void t07_gradientsOfUnevenReplicas() {
    Map<String, double[]> got = stepOfEightRows(new Options(), 5, 8);
    assertStarts(got, "y of rank 0", -2.81584445, 2.51533131, -0.562861882);
    assertStarts(got, "dx of rank 0", -0.112264495, 3.39993768, -1.61880457);
    assertIs(got, "gamma gradient of rank 0", -2.72655045, 0.222021128, 0.331881983);
    assertIs(got, "gamma gradient of rank 1", -0.350922912, -0.783158386, -0.299295977);
    assertIs(got, "beta gradient of rank 0", 0.902901487, 0.708936192, -0.136821769);
    assertIs(got, "beta gradient of rank 1", 0.97017779, 0.640560939, -0.277984685);
  }

  @Tag("several")
  @Test
  void t08_fourUnevenReplicas() {
    Options options = momentum(0.9);
    options.epsilon = 0.1;
    Map<String, double[]> got = stepOfEightRows(options, 2, 3, 7, 8);
    assertStarts(got, "y of rank 0", -1.75681893, 1.51040339, -0.342927061);
    for (int rank = 0; rank < 4; rank++) {
      assertMoving(
          got,
          rank,
          of(.0556818182, .0318181818, .0454545455),
          of(.907321798, .904338843, .911157025));
    }
  }

  @Tag("several")
  @Test
  void t09_gradients_reachThroughTheStatistics() {
    try (TestedLayer layer = layer(2, momentum(0.5), 2)) {
      Map<String, double[]> got =
          layer.step(
              Step.training(ROWS.rows(0, 3), ROWS.rows(3, 4))
                  .dy(new Values(of(1, 0, 0, 1, 2, -1), 3, 2), row(.5, 3)));
      assertIs(got, "dx of rank 0", .0286419, .0209989, -.4867223, .0439071, .6012520, -.0935413);
      assertIs(got, "dx of rank 1", -.1431715, .0286354);
      assertIs(got, "gamma gradient of rank 0", -1.0688924, -.5345218);
      assertIs(got, "gamma gradient of rank 1", .8016692, 4.8106956);
      assertIs(got, "beta gradient of rank 0", 3, 0);
      assertIs(got, "beta gradient of rank 1", .5, 3);
    }
  }

  @Tag("several")
  @Test
  void t10_threeSteps_moveTheStatistics() {
    try (TestedLayer layer = layer(2, momentum(0.8), 3, 2)) {
      Map<String, double[]> got = Map.of();
      for (int step = 0; step < 3; step++) {
        got =
            layer.step(Step.training(Values.g(2 * step, 2, 3, 2), Values.g(2 * step + 1, 1, 3, 2)));
      }
      assertMoving(got, 1, of(.228767677, .22820202), of(.553230079, .552727273));
    }
  }

  // ------------------------------------------------------------------------------------------------- shapes and axes

  /** A step of {@code G((4,3,2,5),1)}, split 3 + 1, as T11 to T14 have it. */
  private static Map<String, double[]> stepOfImages(TestedLayer layer) {
    Values x = Values.g(1, 4, 3, 2, 5);
    return layer.step(Step.training(x.rows(0, 3), x.rows(3, 4)));
  }

  private TestedLayer layerOfImages(double momentum, int... axis) {
    Options options = momentum(momentum);
    options.axis = axis;
    return layer(2, options, 3, 2, 5);
  }

  @Tag("several")
  @Test
  void t11_channelsLast() {
    try (TestedLayer layer = layerOfImages(0.9, -1)) {
      Map<String, double[]> got = stepOfImages(layer);
      assertStarts(got, "y of rank 0", -.0271120813, -1.18240064, .81932214);
      assertStarts(got, "moving_variance of rank 1", .907707759);
    }
  }

  @Tag("several")
  @Test
  void t12_channelsFirst() {
    try (TestedLayer layer = layerOfImages(0, 1)) {
      Map<String, double[]> got = stepOfImages(layer);
      assertMoving(
          got,
          0,
          of(.454545455, .468181818, .431818182),
          of(.0739669421, .0878305785, .0841942149));
    }
  }

  @Tag("several")
  @Test
  void t13_twoAxes_apart() {
    try (TestedLayer layer = layerOfImages(0, 1, -1)) {
      Map<String, double[]> got = stepOfImages(layer);
      assertThat(layer.layer.gamma(layer.group.replica(0)).shape()).containsExactly(1, 3, 1, 5);
      assertStarts(got, "moving_mean of rank 0", .681818182, .318181818, .454545455);
    }
  }

  @Tag("several")
  @Test
  void t14_allAxesButTheBatch() {
    try (TestedLayer layer = layerOfImages(0, 1, 2, 3)) {
      Map<String, double[]> got = stepOfImages(layer);
      assertThat(layer.layer.gamma(layer.group.replica(0)).shape()).containsExactly(1, 3, 2, 5);
      Values x = Values.g(1, 4, 3, 2, 5);
      for (int c = 0; c < 30; c++) {
        double mean = 0;
        for (int n = 0; n < 4; n++) {
          mean += x.data()[30 * n + c] / 4;
        }
        assertThat(got.get("moving_mean of rank 1")[c]).isCloseTo(mean, within(TOLERANCE));
      }
    }
  }

  @Test
  void t15_channelsFirst_dividesByTheTrueCount() {
    Options options = momentum(0);
    options.axis = new int[] {1};
    try (TestedLayer layer = layer(1, options, 3, 4, 5)) {
      Map<String, double[]> got = layer.step(Step.training(Values.of(k -> k, 2, 3, 4, 5)));
      assertIs(got, "moving_mean of rank 0", 39.5, 59.5, 79.5);
    }
  }

  @Test
  void t16_axisOfTheBatch() {
    Options options = momentum(0.5);
    options.axis = new int[] {0};
    try (TestedLayer layer =
        new TestedLayer(group(1), DType.FLOAT32, options, UnaryOperator.identity(), 3, -1)) {
      Map<String, double[]> got = layer.step(Step.training(Values.g(0, 3, 4)));
      assertMoving(
          got,
          0,
          of(.454545455 / 2, .5 / 2, .295454545 / 2),
          of(.559917355, .525826446, .540030992));
    }
  }

  @Tag("several")
  @Test
  void t17_fiveDimensions() {
    Values x = Values.g(3, 2, 2, 3, 2, 2);
    try (TestedLayer layer = layer(2, momentum(0.5), 2, 3, 2, 2)) {
      Map<String, double[]> got = layer.step(Step.training(x.rows(0, 1), x.rows(1, 2)));
      assertIs(got, "moving_mean of rank 0", .229166667, .214015152);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 3, 4, 5, 6, 7})
  void t18_ranks_matchTheFormula(int rank) {
    long[] exampleShape = {5, 3, 2, 2, 1, 4};
    exampleShape = Arrays.copyOfRange(exampleShape, exampleShape.length - rank + 1, 6);
    long[] shape = LongStream.concat(LongStream.of(3), Arrays.stream(exampleShape)).toArray();
    PlainLayer plain = new PlainLayer(new Options(), 4, 1);
    try (TestedLayer layer = layer(1, new Options(), exampleShape)) {
      Step step = Step.training(Values.g(rank, shape));
      double[] want = plain.step(step).get("y of rank 0").values();
      assertIsWithin(5e-7, layer.step(step), "y of rank 0", want);
    }
  }

  @Test
  void t19_oneDimension_hasOneElementAChannel() {
    try (TestedLayer layer =
        new TestedLayer(group(1), DType.FLOAT32, momentum(0), UnaryOperator.identity(), 6)) {
      layer.set("beta", 1, 2, 3, 4, 5, 6);
      Values x = Values.g(2, 6);
      Map<String, double[]> got = layer.step(Step.training(x));
      assertIs(got, "y of rank 0", 1, 2, 3, 4, 5, 6);
      assertMoving(got, 0, x.data(), new double[6]);
    }
  }

  // ------------------------------------------------------------------------------------------------- arguments

  @Test
  void t20_noCenter_noScale() {
    Options options = options(o -> o.center = o.scale = false);
    try (TestedLayer layer = layer(1, options, 3)) {
      Map<String, double[]> got = layer.step(Step.training(Values.g(0, 8, 3)));
      assertStarts(got, "y of rank 0", -2.0438963, 1.51022087, -.541907921);
      assertThat(layer.layer.variables(layer.group.replica(0)))
          .containsOnlyKeys("moving_mean", "moving_variance");
    }
  }

  @Test
  void t21_scaleAlone_centerAlone() {
    try (TestedLayer scaled = layer(1, options(o -> o.center = false), 3);
        TestedLayer centered = layer(1, options(o -> o.scale = false), 3)) {
      scaled.set("gamma", 2, 2, 2);
      centered.set("beta", 2, 2, 2);
      Step step = Step.training(Values.g(0, 8, 3));
      assertStarts(scaled.step(step), "y of rank 0", -4.08779259);
      assertStarts(centered.step(step), "y of rank 0", -.0438962975);
      assertThat(scaled.layer.variables(scaled.group.replica(0)))
          .containsOnlyKeys("gamma", "moving_mean", "moving_variance");
      assertThat(centered.layer.variables(centered.group.replica(0)))
          .containsOnlyKeys("beta", "moving_mean", "moving_variance");
    }
  }

  @Test
  void t22_tenSteps_withTheDefaults() {
    try (TestedLayer layer = layer(1, new Options(), 1)) {
      Map<String, double[]> got = Map.of();
      for (int step = 0; step < 10; step++) {
        got = layer.step(Step.training(row(.5)));
      }
      assertMoving(got, 0, of(.0478089625), of(.904382075));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {4, 5})
  void t23_variance_isOfThePopulation(int rank) {
    long[] exampleShape = LongStream.generate(() -> 1).limit(rank - 1).toArray();
    long[] shape = LongStream.concat(LongStream.of(2), Arrays.stream(exampleShape)).toArray();
    try (TestedLayer layer = layer(1, momentum(0.5), exampleShape)) {
      layer.set("moving_variance", 0);
      Map<String, double[]> got = layer.step(Step.training(new Values(of(0, 2), shape)));
      assertIs(got, "moving_variance of rank 0", .5);
    }
  }

  private void assertMovingAfterOneStep(double momentum, double mean, double variance) {
    try (TestedLayer layer = layer(1, momentum(momentum), 1)) {
      assertMoving(layer.step(Step.training(FROM_0_TO_2)), 0, of(mean), of(variance));
    }
  }

  @Test
  void t24_momentumOneAndZero() {
    assertMovingAfterOneStep(1, 0, 1);
    assertMovingAfterOneStep(0, 1, 1);
  }

  @Test
  void t25_momentumOutsideZeroToOne() {
    assertMovingAfterOneStep(2, -1, 1);
    assertMovingAfterOneStep(-1, 2, 1);
  }

  @Tag("several")
  @Test
  void t26_inferenceAfterTwoSteps() {
    UnaryOperator<SyncBatchNormalization.Builder> initial =
        builder ->
            builder
                .movingMeanInitializer(Initializers.constant(.25))
                .movingVarianceInitializer(Initializers.constant(2));
    try (TestedLayer layer = layer(2, DType.FLOAT32, momentum(0.75), initial, 7)) {
      layer.step(Step.training(Values.g(0, 2, 7), Values.g(1, 2, 7)));
      layer.step(Step.training(Values.g(2, 1, 7), Values.g(3, 4, 7)));
      Values x = Values.g(5, 2, 7);
      Map<String, double[]> got = layer.step(Step.inference(x, x));
      assertStarts(got, "moving_mean of rank 1", .380397727);
      assertStarts(got, "moving_variance of rank 1", 1.16040289);
      assertStarts(got, "y of rank 0", -.0999091111);
    }
  }

  @Tag("several")
  @Test
  void t27_inferenceBeforeTraining_changesNothing() {
    try (TestedLayer layer = layer(2, new Options(), 2)) {
      Map<String, double[]> got = layer.step(Step.inference(ROWS, ROWS));
      assertStarts(got, "y of rank 0", .9995003747, 9.995003747);
      assertThat(got.get("y of rank 1")).containsExactly(got.get("y of rank 0"));
      assertThat(got.get("moving_mean of rank 0")).containsOnly(0);
      assertThat(got.get("moving_variance of rank 0")).containsOnly(1);
    }
  }

  @Tag("several")
  @Test
  void t28_weightsOfReplicasThatDiffer_areTheirMean() {
    try (TestedLayer layer = layer(2, new Options(), 2)) {
      layer.set(layer.group.replica(0), "moving_mean", 1, 2);
      layer.set(layer.group.replica(1), "moving_mean", 3, 6);
      assertThat(layer.layer.getWeights().get(2)).containsExactly(2, 4);
      Map<String, double[]> got = layer.step(Step.inference(row(0, 0), row(0, 0)));
      assertIs(got, "y of rank 0", -.9995004, -1.9990008);
      assertIs(got, "y of rank 1", -2.9985011, -5.9970026);
      layer.layer.setWeights(List.of(of(1, 1), of(0, 0), of(5, 6), of(1, 1)));
      for (int rank = 0; rank < 2; rank++) {
        assertThat(layer.get(rank, "moving_mean")).containsExactly(5, 6);
      }
    }
  }

  // ------------------------------------------------------------------------------------------------- several layers, exchanges

  /** Gamma and beta after four steps of gradient descent towards a target, in a batch of 8. */
  private List<double[]> trained(int replicas) {
    int rows = 8 / replicas;
    Values x = Values.g(0, 8, 3);
    Values target = Values.w(8, 3);
    try (TestedLayer layer = layer(replicas, momentum(0.9), 3)) {
      for (int iteration = 0; iteration < 4; iteration++) {
        Step step = new Step(true, new ArrayList<>());
        step.dy = new ArrayList<>();
        for (int rank = 0; rank < replicas; rank++) {
          step.x.add(x.rows(rank * rows, (rank + 1) * rows));
        }
        Map<String, double[]> outputs = layer.step(Step.inference(step.x.toArray(Values[]::new)));
        for (int rank = 0; rank < replicas; rank++) {
          double[] y = outputs.get("y of rank " + rank);
          double[] wanted = target.rows(rank * rows, (rank + 1) * rows).data();
          step.dy.add(Values.of(k -> (y[k] - wanted[k]) / 8, rows, 3));
        }
        layer.step(step);
        layer.layer.allReduceGradients();
        layer.group.replicas().forEach(replica -> descend(layer, replica, 0.5));
      }
      return layer.layer.getWeights();
    }
  }

  /** A training loop around this layer alone, in place of Keras' model of three layers. */
  @Tag("several")
  @Test
  void t29_trainingOnFourReplicas_isTrainingOnOne() {
    List<double[]> alone = trained(1);
    List<double[]> together = trained(4);
    assertThat(alone.get(0)[0]).as("gamma has moved").isNotCloseTo(1, within(1e-2));
    for (int i = 0; i < alone.size(); i++) {
      assertThat(together.get(i)).containsExactly(alone.get(i), within(TOLERANCE));
    }
  }

  /** The sum of two layers of the same tensor, its input gradient, and the layers' state. */
  private List<double[]> twoLayersOfOneTensor(int replicas) {
    Values whole = Values.g(3, 6, 2);
    int rows = 6 / replicas;
    double[] y = new double[12];
    double[] dx = new double[12];
    try (ReplicaGroup group = group(replicas)) {
      List<SyncBatchNormalization> layers = new ArrayList<>();
      for (double momentum : of(0.5, 0.25)) {
        layers.add(SyncBatchNormalization.builder(group, 2).momentum(momentum).build());
      }
      List<DeviceTensor> x = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        Values own = whole.rows(rows * replica.rank(), rows * (replica.rank() + 1));
        x.add(Placement.rowMajor(replica, DType.FLOAT32, own.shape()).write(own.data()).tensor);
      }
      List<List<DeviceTensor>> outputs = List.of(like(x), like(x));
      List<ForwardPass> passes = new ArrayList<>();
      for (int i = 0; i < 2; i++) {
        passes.add(layers.get(i).forward(x, outputs.get(i), true));
      }
      for (int i = 1; i >= 0; i--) {
        add(y, outputs.get(i));
        layers.get(i).backward(passes.get(i), x, outputs.get(i));
        add(dx, outputs.get(i));
        passes.get(i).close();
      }
      return List.of(y, dx, layers.get(0).getWeights().get(2), layers.get(1).getWeights().get(3));
    }
  }

  private static List<DeviceTensor> like(List<DeviceTensor> tensors) {
    return tensors.stream().map(t -> t.replica().allocate(t.dtype(), t.shape())).toList();
  }

  private static void add(double[] sum, List<DeviceTensor> parts) {
    int at = 0;
    for (DeviceTensor part : parts) {
      for (double value : part.copyToHostAsDoubles()) {
        sum[at++] += value;
      }
    }
  }

  @Tag("several")
  @Test
  void t30_twoLayersOfOneTensor_equalThoseOfOneReplica() {
    List<double[]> alone = twoLayersOfOneTensor(1);
    List<double[]> together = twoLayersOfOneTensor(2);
    for (int i = 0; i < alone.size(); i++) {
      assertThat(together.get(i)).containsExactly(alone.get(i), within(TOLERANCE));
    }
  }

  /** Lines of rank 0's exchanges. */
  private static List<String> exchanges(List<String> trace) {
    String device = trace.get(0).split(" ")[0];
    return trace.stream()
        .filter(line -> line.startsWith(device + " ") && !line.contains(" kernel "))
        .toList();
  }

  /** Here one a direction, where Keras has three and two. */
  @Tag("several")
  @Test
  void t31_exchanges_areOneADirection_andNoneInInference() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    ReplicaGroup group = groupOf(2).trace(trace::add).build();
    try (TestedLayer layer =
        new TestedLayer(group, DType.FLOAT32, new Options(), UnaryOperator.identity(), -1, 2)) {
      Step step = Step.training(ROWS, ROWS);
      layer.step(step);
      assertThat(exchanges(trace)).hasSize(1);
      trace.clear();
      layer.step(step.dy(ROWS, ROWS));
      assertThat(exchanges(trace)).hasSize(2);
      trace.clear();
      layer.step(Step.inference(ROWS, ROWS).dy(ROWS, ROWS));
      assertThat(exchanges(trace)).isEmpty();
      trace.clear();
      layer.layer.setTrainable(false);
      layer.step(step);
      assertThat(exchanges(trace)).isEmpty();
    }
  }

  @Tag("several")
  @Test
  void t32_exchangesOfTwoLayers_areInTheOrderOfTheCalls() {
    List<String> trace = Collections.synchronizedList(new ArrayList<>());
    try (ReplicaGroup group = groupOf(2).trace(trace::add).build()) {
      List<String> expected = new ArrayList<>();
      for (int channels : new int[] {3, 5, 3}) {
        SyncBatchNormalization layer = SyncBatchNormalization.builder(group, channels).build();
        List<DeviceTensor> x =
            group.replicas().stream()
                .map(r -> Placement.rowMajor(r, DType.FLOAT32, 2, channels).tensor)
                .toList();
        layer.forward(x, x, true).close();
        expected.add(2 * (2 + 2 * channels) + " float64"); // a row of each replica
      }
      List<String> lines = exchanges(trace);
      assertThat(lines).hasSize(3);
      for (int i = 0; i < 3; i++) {
        assertThat(lines.get(i)).contains(expected.get(i));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------- hard numbers

  @Test
  void t33_constant_hasNoVariance() {
    try (TestedLayer layer = layer(1, momentum(0), 1)) {
      Map<String, double[]> got = layer.step(Step.training(Values.of(k -> 1000.1, 7, 1)));
      assertThat(got.get("moving_variance of rank 0")).containsExactly(0);
      for (double y : got.get("y of rank 0")) {
        assertThat(y).isCloseTo(0, within(.01));
      }
    }
  }

  @Test
  void t34_smallVarianceFarFromZero_keepsItsDigits() {
    double[] x = of(1000, 1000.1, 1000.2, 1000.3);
    try (TestedLayer layer = layer(1, momentum(0), 1)) {
      Map<String, double[]> got = layer.step(Step.training(column(x)));
      assertIsWithin(.000125, got, "moving_variance of rank 0", .0125);
      assertIsWithin(.01, got, "y of rank 0", -1.29, -.43, .43, 1.29);
    }
  }

  @Tag("several")
  @Test
  void t35_replicasOfOtherSizes_countByElement() {
    try (TestedLayer layer = layer(2, momentum(0), -1, -1, 1)) {
      Map<String, double[]> got =
          layer.step(Step.training(Values.of(k -> k, 1, 2, 2, 1), Values.of(k -> k, 1, 4, 4, 1)));
      for (int rank = 0; rank < 2; rank++) {
        assertMoving(got, rank, of(6.3), of(23.01));
      }
    }
  }

  @Tag("several")
  @Test
  void t36_nan_staysInItsChannel() {
    try (TestedLayer layer = layer(2, momentum(0.5), 2);
        TestedLayer without = layer(2, momentum(0.5), 2)) {
      Map<String, double[]> clean = without.step(Step.training(ROWS, row(1, 1)));
      Map<String, double[]> got = layer.step(Step.training(ROWS, row(Double.NaN, 1)));
      for (int rank = 0; rank < 2; rank++) {
        for (String name : List.of("y", "moving_mean", "moving_variance")) {
          double[] values = got.get(name + " of rank " + rank);
          double[] exact = clean.get(name + " of rank " + rank);
          for (int i = 0; i < values.length; i++) {
            assertThat(values[i]).isEqualTo(Double.valueOf(i % 2 == 0 ? Double.NaN : exact[i]));
          }
        }
      }
    }
  }

  // ------------------------------------------------------------------------------------------------- dtypes

  @Test
  void t37_float16_hasFloat32Statistics() {
    try (TestedLayer layer = layer(DType.FLOAT16, 0, 1)) {
      Map<String, double[]> got = layer.step(Step.training(column(-1000, 1000)));
      assertThat(got.get("y of rank 0")).containsExactly(-1, 1);
      assertIs(got, "moving_variance of rank 0", 1e6);
      Replica replica = layer.group.replica(0);
      assertThat(layer.layer.gamma(replica).dtype()).isEqualTo(DType.FLOAT32);
      assertThat(layer.layer.movingVariance(replica).dtype()).isEqualTo(DType.FLOAT32);
    }
  }

  @Test
  void t38_float16_squaresDoNotOverflow() {
    try (TestedLayer layer = layer(DType.FLOAT16, 0, 1)) {
      Map<String, double[]> got = layer.step(Step.training(column(-60000, 60000)));
      assertThat(got.get("y of rank 0")).containsExactly(-1, 1);
      double square = 59_999.0 * 59_999; // of 60000, which float16 has as 60000
      assertThat(got.get("moving_variance of rank 0")[0]).isCloseTo(3.6e9, within(3.6e9 - square));
    }
  }

  @Test
  void t39_float16() {
    try (TestedLayer layer = layer(DType.FLOAT16, 0.5, 3)) {
      Map<String, double[]> got = layer.step(Step.training(Values.g(0, 4, 3).times(10)));
      assertThat(Arrays.copyOf(got.get("y of rank 0"), 3))
          .containsExactly(-1.7041015625, 1.341796875, 1.3408203125);
      assertMoving(got, 0, of(3.0683594, 2.5, .6817627), of(6.98365, 1.0159645, 1.016297));
    }
  }

  @Test
  void t40_bfloat16() {
    try (TestedLayer layer = layer(DType.BFLOAT16, 0.5, 3)) {
      Map<String, double[]> got = layer.step(Step.training(Values.g(0, 4, 3).times(10)));
      assertThat(Arrays.copyOf(got.get("y of rank 0"), 3))
          .containsExactly(-1.703125, 1.34375, 1.34375);
      assertIs(got, "moving_mean of rank 0", 3.0664062, 2.5019531, .68310547);
    }
  }

  @Tag("several")
  @Test
  void t41_float64_matchesTheFormula() {
    Step step =
        Step.training(Values.g(0, 5, 3), Values.g(2, 3, 3)).dy(Values.w(5, 3), Values.w(3, 3));
    PlainLayer plain = new PlainLayer(momentum(0.5), 3, 2);
    try (TestedLayer layer = layer(2, DType.FLOAT64, momentum(0.5), UnaryOperator.identity(), 3)) {
      Map<String, double[]> got = layer.step(step);
      plain.step(step).forEach((name, want) -> assertIsWithin(1e-12, got, name, want.values()));
    }
  }

  private void assertRefused(DType layerType, DType tensorType) {
    try (TestedLayer layer = layer(layerType, 0.5, 3)) {
      DeviceTensor x = layer.group.replica(0).allocate(tensorType, 2, 3);
      assertRefused(
          () -> layer.layer.forward(List.of(x), List.of(x), true),
          layerType.toString(),
          tensorType.toString());
    }
  }

  /** Here a tensor of another dtype is refused; Keras casts it. */
  @Test
  void t42_float64TensorForAFloat32Layer_isRefused() {
    assertRefused(DType.FLOAT32, DType.FLOAT64);
    assertRefused(DType.FLOAT64, DType.FLOAT32);
    assertRefused(DType.FLOAT16, DType.BFLOAT16);
  }

  /** Here there are no tensors of integers, as in TF 2.4; later Keras casts them. */
  @Test
  void t43_otherThanFloatingPoint_isRefused() {
    assertThat(Arrays.stream(DType.values()).filter(dtype -> !dtype.isFloatingPoint()))
        .containsExactly(DType.BOOL);
    assertRefused(DType.FLOAT32, DType.BOOL);
  }
}
