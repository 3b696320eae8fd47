package io.github.syncbn4j.device;

import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import java.time.Duration;
import java.util.List;

/**
 * The devices of a group's replicas in this process, in rank order, and what connects them with
 * those of other processes.
 *
 * <p>Threads: {@link #exchange} and {@link #run} are called by one thread with the parts of all
 * replicas, or by one thread a replica with its own. {@link #abort} may be called by any thread at
 * any time.
 */
public interface DeviceGroup extends AutoCloseable {
  List<Device> devices();

  /** Ranks of the group, in all processes. */
  int size();

  /** The rank of the first device; those of the others follow. */
  int firstRank();

  /**
   * Enqueues the exchange of rows: afterwards each replica's buffer holds the rows of all. Every
   * replica of the group has to come, with rows of one length, in the same order of steps.
   *
   * <p>May wait for the other replicas: on the CPU always, with NCCL where it connects the ranks.
   * {@link #abort} ends the wait.
   *
   * @param rows the buffers of those replicas that this thread drives
   * @throws CollectiveException if rows of other lengths came, or the group was aborted
   * @throws DeviceException if the native call fails
   */
  void exchange(Rows[] rows);

  /**
   * Whether {@link #forward} and {@link #backward} take a direction of this many replicas, which
   * one thread drives, at once.
   */
  default boolean joins(int replicas) {
    return false;
  }

  /**
   * Enqueues the forward of a training step: the statistics of every replica, the exchange, the
   * normalization of every replica, with the bits of the single calls. Only where it {@linkplain
   * #joins joins} them.
   *
   * @throws DeviceException if the native call fails; then no replica took the step
   */
  default void forward(Halves<syncbn_stats_args, syncbn_normalize_args> halves, Rows[] rows) {
    throw new UnsupportedOperationException("see joins");
  }

  /** As {@link #forward}, of the backward of a training step. */
  default void backward(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves, Rows[] rows) {
    throw new UnsupportedOperationException("see joins");
  }

  /**
   * Bytes of x that {@link #forward} keeps on a device's chip, so that it is one launch; 0: it
   * keeps nothing.
   */
  default long forwardOnChip(Halves<syncbn_stats_args, syncbn_normalize_args> halves) {
    return 0;
  }

  /** As {@link #forwardOnChip}, of x and dy. */
  default long backwardOnChip(
      Halves<syncbn_backward_reduce_args, syncbn_backward_input_args> halves) {
    return 0;
  }

  /** The native call that {@link #exchange} makes for each replica, for traces and messages. */
  String exchangeCall();

  /**
   * Enqueues a collective over tensors, in place. Every replica of the group has to come with a
   * part that {@linkplain Collective#matches matches}; waits and fails as {@link #exchange}.
   *
   * @param parts of those replicas that this thread drives
   */
  void run(Collective[] parts);

  /** The native call that {@link #run} makes for a part, for traces. */
  String callOf(Collective part);

  /**
   * Gives up what is under way and everything after it: waiting replicas are released, their rows
   * are garbage.
   */
  void abort();

  /**
   * The group of the ranks that say the same colour, in the order of their keys; all ranks of this
   * group have to come, with one device a process.
   *
   * @throws UnsupportedOperationException on the CPU
   */
  DeviceGroup split(int color, int key, Duration timeout);

  /** Releases everything but the memory that {@link Device#allocate} gave out. Idempotent. */
  @Override
  void close();
}
