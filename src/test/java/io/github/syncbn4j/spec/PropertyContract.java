package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.Devices;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Layers, tensors and sequences of steps drawn at random, against {@link PlainLayer}.
 *
 * <p>A case is drawn from its seed, which its test is named after; one that fails prints all of
 * itself. {@code -Dsyncbn.property.cases=1000} draws more of them, {@code
 * -Dsyncbn.property.first=123} begins with another seed.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
@Timeout(120)
abstract class PropertyContract implements Devices {
  private static final int MOST_REPLICAS = 4;

  /** How many of one replica, and again of several, unless the system property says otherwise. */
  abstract int cases();

  LongStream seeds() {
    long first = Long.getLong("syncbn.property.first", 1);
    return LongStream.range(first, first + Integer.getInteger("syncbn.property.cases", cases()));
  }

  @ParameterizedTest(name = "seed {0}")
  @MethodSource("seeds")
  void oneReplica_matchesThePlainFormulas(long seed) {
    assertMatches(new DrawnCase(seed, 1));
  }

  @Tag("several")
  @ParameterizedTest(name = "seed {0}")
  @MethodSource("seeds")
  void severalReplicas_matchThePlainFormulas_theSameBitsByAThreadEach(long seed) throws Exception {
    int replicas = 2 + new Random(~seed).nextInt(MOST_REPLICAS - 1);
    DrawnCase drawn = new DrawnCase(seed, replicas);
    List<Map<String, double[]>> byOneThread = assertMatches(drawn);
    try (TestedLayer tested = layer(drawn)) {
      for (int i = 0; i < byOneThread.size(); i++) {
        Map<String, double[]> got = tested.stepByThreads(drawn.steps.get(i));
        assertSameBits(drawn + "\nby a thread a replica, step " + i, got, byOneThread.get(i));
      }
    }
  }

  private List<Map<String, double[]>> assertMatches(DrawnCase drawn) {
    List<Map<String, double[]>> results = new ArrayList<>();
    try (TestedLayer tested = layer(drawn)) {
      for (int i = 0; i < drawn.steps.size(); i++) {
        String context = drawn + "\nafter step " + i;
        Map<String, double[]> got = tested.step(drawn.steps.get(i));
        Accuracy.assertClose(got, drawn.results.get(i), drawn.dtype, context);
        assertStatesAreTheSameBits(drawn, got, context);
        results.add(got);
      }
      assertThat(tested.layer.countedSteps()).as("%s", drawn).isEqualTo(drawn.countedSteps);
    }
    return results;
  }

  private TestedLayer layer(DrawnCase drawn) {
    return new TestedLayer(
        group(drawn.replicas),
        drawn.dtype,
        drawn.options,
        builder -> builder.trainable(drawn.trainable).weights(List.copyOf(drawn.initial.values())),
        Placement.drawn(new Random(drawn.seed)),
        drawn.shape);
  }

  private static void assertStatesAreTheSameBits(
      DrawnCase drawn, Map<String, double[]> got, String context) {
    for (String variable : drawn.initial.keySet()) {
      for (int rank = 1; rank < drawn.replicas; rank++) {
        assertSameBits(
            context + ", " + variable,
            got.get(variable + " of rank " + rank),
            got.get(variable + " of rank 0"));
      }
    }
  }

  private static void assertSameBits(
      String context, Map<String, double[]> got, Map<String, double[]> want) {
    assertThat(got.keySet()).as(context).isEqualTo(want.keySet());
    want.forEach((name, values) -> assertSameBits(context + ", " + name, got.get(name), values));
  }

  /** Arrays are equal whose bits are: -0.0 is not 0.0. Both were widened from one type. */
  private static void assertSameBits(String context, double[] got, double[] want) {
    assertThat(got).as(context).isEqualTo(want);
  }
}
