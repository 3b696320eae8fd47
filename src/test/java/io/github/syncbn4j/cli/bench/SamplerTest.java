package io.github.syncbn4j.cli.bench;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** How samples are taken, and which count. */
class SamplerTest {
  private static final IntConsumer NOTHING = set -> {};

  @Test
  void samplesInWhichAThreadWaited_areCountedAndTakenAgain() {
    Times times = Sampler.run(new StillWaits(4), 1, List.of(NOTHING)).get(0);
    assertThat(times.discarded()).isEqualTo(4);
    assertThat(times.samples()).isEqualTo(Sampler.SAMPLES);
  }

  @Test
  void samplesAreDiscarded_forAllCallsAlike() {
    List<Times> times = Sampler.run(new StillWaits(4), 1, List.of(NOTHING, NOTHING));
    assertThat(times).extracting(Times::discarded).containsExactly(2, 2);
  }

  @Test
  void aMachineThatIsAlwaysBusy_givesNoSample() {
    Waits busy = new StillWaits(Integer.MAX_VALUE);
    Times times = Sampler.run(busy, 1, List.of(NOTHING)).get(0);
    assertThat(times.samples()).isZero();
    assertThat(times.discarded()).isEqualTo(Sampler.MOST_TRIES);
  }

  @Test
  void calls_goThroughTheSetsInTurn() {
    List<Integer> sets = new ArrayList<>();
    Sampler.run(new StillWaits(0), 3, List.of(sets::add));
    assertThat(sets.size()).isGreaterThan(Sampler.SAMPLES);
    for (int i = 0; i < sets.size(); i++) {
      assertThat(sets.get(i)).isEqualTo(i % 3);
    }
  }

  @Test
  void median_andSpread() {
    double[] samples = IntStream.rangeClosed(0, 20).mapToDouble(i -> 20 - i).toArray();
    assertThat(Times.of(samples, 3)).isEqualTo(new Times(10, 2, 18, 21, 3));
  }
}
