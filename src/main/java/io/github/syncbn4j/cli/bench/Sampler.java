package io.github.syncbn4j.cli.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.function.IntConsumer;

/**
 * Times calls that are compared with each other, in rounds: a machine whose memory is faster for a
 * while is so for all of a round's samples, and what is compared is those of one round.
 *
 * <p>Each round has a sample of each call, in an order of its own, so that none always comes after
 * the same other and finds the cache as that left it. All go through the same sets of tensors, each
 * on from where the one before stopped: so a set is as long out of the cache for every call.
 *
 * <p>A sample is the mean of as many calls as take a millisecond, after some that wake the threads
 * up and fill the cache as this call does. One in which the computing threads waited for a
 * processor for longer than waking up takes and than a fiftieth of the time is discarded and taken
 * again at once.
 */
final class Sampler {
  static final int SAMPLES = 5;

  /** Of one call in a round, discarded ones included. */
  static final int MOST_TRIES = 4;

  static final int MOST_ROUNDS = 9;

  /** Of all rounds together, after which no more than {@link #SAMPLES} are begun. */
  private static final long LONGEST_NANOS = 2_000_000_000L;

  private static final double WAITED = 1.0 / 50;

  /** Of all threads together, where no other program wants their processors. */
  private static final long WAKING_NANOS = 100_000;

  private static final long SAMPLE_NANOS = 1_000_000;
  private static final int MOST_CALLS = 1000;

  /** Of the sets, which have twice the cache of x: what is written comes to the same again. */
  private static final int SETS_BY_LEAD = 4;

  /** In calls: what takes longer than this does not wait for what others left in the cache. */
  private static final int LEADS_BY_SAMPLE = 2;

  private static final double MICROSECONDS = 1e3;

  private final Clock clock;
  private final int sets;
  private final List<Sampled> all;
  private int set;
  private int rounds;

  private final class Sampled {
    private final IntConsumer call;

    /** Not a number where the samples of a round were disturbed. */
    private final double[] samples = new double[MOST_ROUNDS];

    private int kept;
    private int discarded;
    private int calls = 1;
    private int lead = 1;

    Sampled(IntConsumer call) {
      this.call = call;
      Arrays.fill(samples, Double.NaN);
    }

    double run(int times) {
      return clock.nanos(
          () -> {
            for (int i = 0; i < times; i++) {
              call.accept(set);
              set = set + 1 == sets ? 0 : set + 1;
            }
          });
    }

    void warmUp() {
      run(1);
      double nanos = Math.max(1, run(1));
      calls = (int) Math.max(1, Math.min(MOST_CALLS, SAMPLE_NANOS / nanos));
      lead = Math.min((sets + SETS_BY_LEAD - 1) / SETS_BY_LEAD, LEADS_BY_SAMPLE * calls);
    }

    void sample(int round) {
      for (int i = 0; i < MOST_TRIES; i++) {
        clock.settle();
        long before = clock.waited();
        double leading = run(lead);
        double nanos = run(calls);
        if (clock.waited() - before <= WAKING_NANOS + (leading + nanos) * WAITED) {
          samples[round] = nanos / MICROSECONDS / calls;
          kept++;
          return;
        }
        discarded++;
      }
    }
  }

  private Sampler(Clock clock, int sets, List<IntConsumer> calls) {
    this.clock = clock;
    this.sets = sets;
    all = calls.stream().map(Sampled::new).toList();
  }

  /**
   * The times of each call, in order; of fewer samples than {@link #SAMPLES} for one that was
   * disturbed too often.
   *
   * @param calls take a number from 0 to {@code sets - 1}
   */
  static List<Times> run(Clock clock, int sets, List<IntConsumer> calls) {
    Sampler sampler = new Sampler(clock, sets, calls);
    sampler.all.forEach(Sampled::warmUp);
    clock.find();
    sampler.takeRounds();
    return sampler.all.stream()
        .map(s -> Times.of(Arrays.copyOf(s.samples, sampler.rounds), s.discarded))
        .toList();
  }

  private void takeRounds() {
    List<Sampled> order = new ArrayList<>(all);
    Random random = new Random(1);
    long begin = System.nanoTime();
    for (; rounds < MOST_ROUNDS; rounds++) {
      boolean late = rounds >= SAMPLES && System.nanoTime() - begin > LONGEST_NANOS;
      if (late || all.stream().allMatch(sampled -> sampled.kept >= SAMPLES)) {
        return;
      }
      Collections.shuffle(order, random);
      for (Sampled sampled : order) {
        sampled.sample(rounds);
      }
    }
  }
}
