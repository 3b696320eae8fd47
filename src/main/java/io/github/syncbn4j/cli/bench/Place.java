package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.ReplicaGroup;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.function.IntConsumer;

/** Where tensors are, and how what is done with them is timed. */
interface Place extends AutoCloseable {
  /** The replicas, which share each batch. */
  ReplicaGroup group();

  /** Processors that compute; on GPUs those that enqueue, one for each. */
  int threads();

  /** What holds tensors nearer than memory does, in bytes. */
  long cacheBytes();

  /** Memories, each with its share of every batch: one for all replicas, or one for each. */
  int parts();

  /** In a part's memory. Aligned to 64 bytes; given back by {@link #free}. */
  long allocate(int part, long bytes);

  void free(int part, long address);

  /** Returns at once or when it is done; later work finds it done. */
  void fill(int part, long address, int value, long bytes);

  /** Values of the host's to {@code address}; all of the buffer. */
  void write(int part, long address, ByteBuffer values);

  /** What is there. */
  ByteBuffer read(int part, long address, long bytes);

  /** Moves memory within a part. */
  interface Copy {
    void run(int part, long to, long from, long bytes);
  }

  /** Ways to do that, of which the fastest counts; the first is the plainest. */
  List<Copy> copies();

  /** Other implementations that can be timed in turns with the layer. */
  List<Peer> peers();

  /**
   * Does {@code work} for every part: for all at once, since what replicas exchange would not come
   * otherwise.
   */
  void each(IntConsumer work);

  /** As {@link Sampler#run} says; of calls that all parts make, until the last has made them. */
  List<Times> time(int sets, List<Way.Call> calls);

  /** Microseconds until a call returns; not a number where it returns when it is done. */
  double microsecondsToEnqueue(int sets, Way.Call call);

  @Override
  void close();
}
