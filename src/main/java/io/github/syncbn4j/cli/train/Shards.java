package io.github.syncbn4j.cli.train;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Which replica reads which images, and when.
 *
 * <p>The images are split into a training and a test set at random. The training set is sorted by
 * class and cut into one shard a replica, and each shard into batches, as a job has it whose files
 * were never shuffled: a replica's batch is of one class, or of two where one ends. Every epoch
 * reads all batches of a shard, in an order of its own.
 */
final class Shards {
  /** Of the 1,797 digits, 1,400 are for training. */
  private static final double TRAINING_SHARE = 1400.0 / 1797;

  private final int[] training;
  private final int[] test;
  private final int replicas;
  private final int batch;
  private final long seed;

  /**
   * @param batch images a replica and step
   */
  Shards(Digits digits, int replicas, int batch, long seed) {
    this.replicas = replicas;
    this.batch = batch;
    this.seed = seed;
    List<Integer> all =
        IntStream.range(0, digits.size()).boxed().collect(Collectors.toCollection(ArrayList::new));
    Collections.shuffle(all, new Random(seed));
    int split = (int) Math.round(digits.size() * TRAINING_SHARE);
    this.training =
        all.subList(0, split).stream()
            .sorted(Comparator.comparing(digits::label))
            .mapToInt(Integer::intValue)
            .toArray();
    this.test = all.subList(split, all.size()).stream().mapToInt(Integer::intValue).toArray();
  }

  int trainingImages() {
    return training.length;
  }

  int[] test() {
    return test.clone();
  }

  /** Images in each replica's shard; what is left over is read by none. */
  int shardSize() {
    return training.length / replicas;
  }

  /** Of every replica; 0 if a shard has not enough images for one. */
  int stepsPerEpoch() {
    return shardSize() / batch;
  }

  /** What a replica reads in a step, which counts on from epoch to epoch. */
  int[] batch(int rank, int step) {
    int steps = stepsPerEpoch();
    int first = rank * shardSize() + order(rank, step / steps)[step % steps] * batch;
    return IntStream.range(first, first + batch).map(i -> training[i]).toArray();
  }

  /** What all replicas together read in a step, in rank order. */
  int[] wholeBatch(int step) {
    return IntStream.range(0, replicas).flatMap(rank -> IntStream.of(batch(rank, step))).toArray();
  }

  private int[] order(int rank, int epoch) {
    List<Integer> batches =
        IntStream.range(0, stepsPerEpoch())
            .boxed()
            .collect(Collectors.toCollection(ArrayList::new));
    Collections.shuffle(batches, new Random(seed * 1_000_003 + epoch * 1_009L + rank));
    return batches.stream().mapToInt(Integer::intValue).toArray();
  }
}
