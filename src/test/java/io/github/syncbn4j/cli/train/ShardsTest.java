package io.github.syncbn4j.cli.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Who reads which images, and when. */
class ShardsTest {
  private static final int REPLICAS = 4;
  private static final int BATCH = 4;

  private final Digits digits = Digits.builtIn();

  ShardsTest() throws IOException {}

  private Shards shards(long seed) {
    return new Shards(digits, REPLICAS, BATCH, seed);
  }

  @Test
  void split_is1400And397() {
    Shards shards = shards(1);
    assertThat(digits.size()).isEqualTo(1797);
    assertThat(shards.trainingImages()).isEqualTo(1400);
    assertThat(shards.test()).hasSize(397).doesNotHaveDuplicates();
    assertThat(shards.test()).isEqualTo(shards(1).test()).isNotEqualTo(shards(2).test());
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 5})
  void epoch_readsAnImageOnce_andNoneOfTheTestSet(int epoch) {
    Shards shards = shards(3);
    int steps = shards.stepsPerEpoch();
    assertThat(steps).isEqualTo(87);
    int[] read =
        IntStream.range(epoch * steps, (epoch + 1) * steps)
            .flatMap(step -> IntStream.of(shards.wholeBatch(step)))
            .toArray();
    assertThat(read).hasSize(steps * REPLICAS * BATCH).doesNotHaveDuplicates();
    assertThat(read).doesNotContain(shards.test());
  }

  @Test
  void epochs_haveOrdersOfTheirOwn() {
    Shards shards = shards(3);
    assertThat(shards.batch(0, 0)).isNotEqualTo(shards.batch(0, shards.stepsPerEpoch()));
  }

  @Test
  void wholeBatch_isTheReplicasBatchesInRankOrder() {
    Shards shards = shards(4);
    int[] joined =
        IntStream.range(0, REPLICAS)
            .flatMap(rank -> IntStream.of(shards.batch(rank, 17)))
            .toArray();
    assertThat(shards.wholeBatch(17)).isEqualTo(joined);
  }

  @Test
  void replicas_seeOneClassAtATime_ofFewInAll() {
    Shards shards = shards(5);
    int mixed = 0;
    for (int rank = 0; rank < REPLICAS; rank++) {
      Set<Integer> classes = new HashSet<>();
      for (int step = 0; step < shards.stepsPerEpoch(); step++) {
        int[] labels = Arrays.stream(shards.batch(rank, step)).map(digits::label).toArray();
        mixed += Arrays.stream(labels).distinct().count() > 1 ? 1 : 0;
        Arrays.stream(labels).forEach(classes::add);
      }
      assertThat(classes).hasSizeBetween(3, 4);
    }
    assertThat(mixed).as("batches in which a class ends").isLessThanOrEqualTo(9);
  }
}
