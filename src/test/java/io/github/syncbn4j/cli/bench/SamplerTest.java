package io.github.syncbn4j.cli.bench;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
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
  void roundsWithoutASample_haveAPlaceAllTheSame() {
    List<Times> times =
        Sampler.run(new StillWaits(Sampler.MOST_TRIES), 1, List.of(NOTHING, NOTHING));
    assertThat(times).allMatch(call -> call.rounds().length == Sampler.SAMPLES + 1);
    assertThat(times).extracting(Times::discarded).containsOnlyOnce(Sampler.MOST_TRIES);
    assertThat(times).extracting(Times::samples).contains(Sampler.SAMPLES, Sampler.SAMPLES + 1);
  }

  @Test
  void aMachineThatIsAlwaysBusy_givesNoSample() {
    Clock busy = new StillWaits(Integer.MAX_VALUE);
    Times times = Sampler.run(busy, 1, List.of(NOTHING)).get(0);
    assertThat(times.samples()).isZero();
    assertThat(times.discarded()).isEqualTo(Sampler.MOST_TRIES * Sampler.MOST_ROUNDS);
  }

  /** A set that one call has just had would still be in the cache for the next. */
  @Test
  void calls_goThroughTheSetsTogether() {
    List<Integer> sets = new ArrayList<>();
    Sampler.run(new StillWaits(0), 3, List.of(sets::add, sets::add));
    assertThat(sets.size()).isGreaterThan(2 * Sampler.SAMPLES);
    for (int i = 0; i < sets.size(); i++) {
      assertThat(sets.get(i)).isEqualTo(i % 3);
    }
  }

  @Test
  void rounds_haveOrdersOfTheirOwn() {
    List<String> samples = new ArrayList<>();
    Clock begins =
        new Clock() {
          @Override
          public void settle() {
            samples.add("");
          }

          @Override
          public double nanos(Runnable work) {
            work.run();
            return 1;
          }
        };
    samples.add("before");
    Consumer<String> note = call -> samples.set(samples.size() - 1, call);
    Sampler.run(begins, 1, List.of(set -> note.accept("a"), set -> note.accept("b")));
    Set<List<String>> rounds = new HashSet<>();
    for (int i = 1; i < samples.size(); i += 2) {
      rounds.add(samples.subList(i, i + 2));
    }
    assertThat(rounds).containsExactlyInAnyOrder(List.of("a", "b"), List.of("b", "a"));
  }

  @Test
  void median_andSpread() {
    double[] samples = IntStream.rangeClosed(0, 20).mapToDouble(i -> 20 - i).toArray();
    Times times = Times.of(samples, 3);
    assertThat(List.of(times.median(), times.p10(), times.p90())).containsExactly(10.0, 2.0, 18.0);
    assertThat(times.and(times).samples()).isEqualTo(42);
    assertThat(times.and(times).discarded()).isEqualTo(6);
  }

  /** The second has no sample in the round that the first was slow in. */
  @Test
  void ratio_isThatOfTheRounds() {
    Times first = Times.of(new double[] {2, 20, 300, 4}, 0);
    Times second = Times.of(new double[] {1, 10, Double.NaN, 1}, 0);
    assertThat(first.ratio(second)).isEqualTo(2);
  }
}
