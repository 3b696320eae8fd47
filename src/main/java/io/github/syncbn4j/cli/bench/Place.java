package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.ReplicaGroup;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.function.IntConsumer;

/** Where tensors are, and how what is done with them is timed. */
interface Place extends AutoCloseable {
  /** The replicas, which share each batch. */
  ReplicaGroup group();

  /** Processors that compute; on a GPU the one that enqueues. */
  int threads();

  /** What holds tensors nearer than memory does, in bytes. */
  long cacheBytes();

  /** Aligned to 64 bytes; given back by {@link #free}. */
  long allocate(long bytes);

  void free(long address);

  /** Returns at once or when it is done; later work finds it done. */
  void fill(long address, int value, long bytes);

  /** Values of the host's to {@code address}; all of the buffer. */
  void write(long address, ByteBuffer values);

  /** What is there; in the order of the host's bytes. */
  ByteBuffer read(long address, long bytes);

  /** Moves memory within this place. */
  interface Copy {
    void run(long to, long from, long bytes);
  }

  /** Ways to do that, of which the fastest counts; the first is the plainest. */
  List<Copy> copies();

  /** Other implementations that can be timed in turns with the layer. */
  List<Peer> peers();

  /** As {@link Sampler#run} says. */
  List<Times> time(int sets, List<IntConsumer> calls);

  /** Microseconds until a call returns; not a number where it returns when it is done. */
  double microsecondsToEnqueue(int sets, IntConsumer call);

  @Override
  void close();
}
