package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Devices;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.Arrays;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Timeout;

/**
 * What the conformance cases of the specification's section 9 are written with. Each is a test by
 * its number, in float32 unless it says otherwise. Where a comment says "here", design.md decides
 * otherwise than the layer that the specification was read from.
 */
@Timeout(60)
abstract class SpecificationCases implements Devices {
  /** The specification's for float32, absolute. */
  static final double TOLERANCE = 1e-5;

  /** x of T01 to T03 and others. */
  static final Values ROWS = new Values(new double[] {1, 10, 2, 20, 3, 30, 6, 60}, 4, 2);

  static Options options(Consumer<Options> set) {
    Options options = new Options();
    set.accept(options);
    return options;
  }

  static Options momentum(double momentum) {
    return options(o -> o.momentum = momentum);
  }

  /** A layer for inputs of this shape, but for any number of examples. */
  final TestedLayer layer(int replicas, Options options, long... exampleShape) {
    return layer(replicas, DType.FLOAT32, options, UnaryOperator.identity(), exampleShape);
  }

  final TestedLayer layer(
      int replicas,
      DType dtype,
      Options options,
      UnaryOperator<SyncBatchNormalization.Builder> more,
      long... exampleShape) {
    long[] shape = LongStream.concat(LongStream.of(-1), Arrays.stream(exampleShape)).toArray();
    return new TestedLayer(group(replicas), dtype, options, more, shape);
  }

  /** A layer that is built with more than {@link Options} has. */
  final TestedLayer layer(
      UnaryOperator<SyncBatchNormalization.Builder> more, long... exampleShape) {
    return layer(1, DType.FLOAT32, new Options(), more, exampleShape);
  }

  final TestedLayer layer(DType dtype, double momentum, long channels) {
    return layer(1, dtype, momentum(momentum), UnaryOperator.identity(), channels);
  }

  static Values row(double... values) {
    return new Values(values, 1, values.length);
  }

  static Values column(double... values) {
    return new Values(values, values.length, 1);
  }

  static Values empty(long channels) {
    return new Values(new double[0], 0, channels);
  }

  /** That a result is these numbers. */
  static void assertIs(Map<String, double[]> got, String name, double... want) {
    assertIsWithin(TOLERANCE, got, name, want);
  }

  static void assertIsWithin(
      double tolerance, Map<String, double[]> got, String name, double... want) {
    assertThat(got.get(name)).as(name).containsExactly(want, within(tolerance));
  }

  /** That a result begins with these numbers. */
  static void assertStarts(Map<String, double[]> got, String name, double... want) {
    assertThat(Arrays.copyOf(got.get(name), want.length))
        .as(name)
        .containsExactly(want, within(TOLERANCE));
  }

  static void assertMoving(Map<String, double[]> got, int rank, double[] mean, double[] variance) {
    assertIs(got, "moving_mean of rank " + rank, mean);
    assertIs(got, "moving_variance of rank " + rank, variance);
  }

  static double[] of(double... values) {
    return values;
  }

  static void assertRefused(Runnable call, String... texts) {
    assertThatThrownBy(call::run)
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContainingAll(texts);
  }

  /** Of a configuration with single quotes for double ones. */
  static SyncBatchNormalization.Builder fromConfig(ReplicaGroup group, String json) {
    return SyncBatchNormalization.fromConfig(group, json.replace('\'', '"'));
  }

  /** Moves a replica's gamma and beta against their gradients. */
  static void descend(TestedLayer layer, Replica replica, double rate) {
    descend(layer.layer.gamma(replica), layer.layer.gammaGradient(replica), rate);
    descend(layer.layer.beta(replica), layer.layer.betaGradient(replica), rate);
  }

  private static void descend(DeviceTensor variable, DeviceTensor gradient, double rate) {
    double[] values = variable.copyToHostAsDoubles();
    double[] slope = gradient.copyToHostAsDoubles();
    for (int c = 0; c < values.length; c++) {
      values[c] -= rate * slope[c];
    }
    variable.copyFromHost(values);
  }
}
