package io.github.syncbn4j.cli.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntConsumer;

/**
 * Times calls that are compared with each other: in turns, so that a machine that is faster for a
 * while is so for all of them.
 *
 * <p>A sample is the mean of as many calls as take a millisecond, after one that wakes the threads
 * up. One in which the computing threads waited for a processor for longer than waking up takes and
 * than a fiftieth of the time is discarded and taken again.
 */
final class Sampler {
  static final int SAMPLES = 21;

  /** Of one call, discarded ones included. */
  static final int MOST_TRIES = 150;

  /** Of all calls together, after which nothing is taken again. */
  private static final long LONGEST_NANOS = 5_000_000_000L;

  private static final double WAITED = 1.0 / 50;

  /** Of all threads together, where no other program wants their processors. */
  private static final long WAKING_NANOS = 100_000;

  private static final long SAMPLE_NANOS = 1_000_000;
  private static final int MOST_CALLS = 1000;
  private static final double MICROSECONDS = 1e3;

  private final Waits waits;
  private final int sets;
  private final List<Sampled> all;
  private long begin;

  private final class Sampled {
    private final IntConsumer call;
    private final double[] samples = new double[SAMPLES];
    private int kept;
    private int discarded;
    private int calls = 1;
    private int set;

    Sampled(IntConsumer call) {
      this.call = call;
    }

    boolean isDone() {
      int tries = kept + discarded;
      return kept == SAMPLES
          || tries == MOST_TRIES
          || tries >= SAMPLES && System.nanoTime() - begin > LONGEST_NANOS;
    }

    long run(int times) {
      long begin = System.nanoTime();
      for (int i = 0; i < times; i++) {
        call.accept(set);
        set = set + 1 == sets ? 0 : set + 1;
      }
      return System.nanoTime() - begin;
    }

    void warmUp() {
      run(1);
      long nanos = Math.max(1, run(2) / 2);
      calls = (int) Math.max(1, Math.min(MOST_CALLS, SAMPLE_NANOS / nanos));
      run(calls);
    }

    void sample() {
      waits.settle();
      long before = waits.nanos();
      long waking = run(1);
      long nanos = run(calls);
      if (waits.nanos() - before > WAKING_NANOS + (waking + nanos) * WAITED) {
        discarded++;
      } else {
        samples[kept++] = nanos / MICROSECONDS / calls;
      }
    }

    Times times() {
      return Times.of(Arrays.copyOf(samples, kept), discarded);
    }
  }

  private Sampler(Waits waits, int sets, List<IntConsumer> calls) {
    this.waits = waits;
    this.sets = sets;
    this.all = calls.stream().map(Sampled::new).toList();
  }

  /**
   * The times of each call, in order; of fewer samples than {@link #SAMPLES} for one that was
   * disturbed too often.
   *
   * @param calls take a number from 0 to {@code sets - 1}, one after the other
   */
  static List<Times> run(Waits waits, int sets, List<IntConsumer> calls) {
    Sampler sampler = new Sampler(waits, sets, calls);
    sampler.all.forEach(Sampled::warmUp);
    waits.find();
    sampler.begin = System.nanoTime();
    while (!sampler.all.stream().allMatch(Sampled::isDone)) {
      for (Sampled sampled : sampler.all) {
        if (!sampled.isDone()) {
          sampled.sample();
        }
      }
    }
    List<Times> times = new ArrayList<>();
    sampler.all.forEach(sampled -> times.add(sampled.times()));
    return times;
  }
}
