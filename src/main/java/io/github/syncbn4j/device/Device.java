package io.github.syncbn4j.device;

import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_copy_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import org.bytedeco.javacpp.Pointer;

/**
 * One replica's device: its memory, its stream and its kernels.
 *
 * <p>The kernels and {@link #zero} are enqueued on {@link #stream()}, which they write into their
 * arguments, and return at once on a GPU; on the CPU they have run when they return. Everything
 * else says when it waits. A device is used by one thread at a time. Failing calls throw {@link
 * DeviceException}.
 */
public interface Device {
  /** Short and stable, as in {@code cpu:0} or {@code gpu:1}: the kind and the ordinal. */
  String id();

  /** What it is, for people: the model of a GPU, the instruction sets of the CPU kernels. */
  String description();

  /** Names the memory that this device's kernels reach; devices with equal names share it. */
  String memorySpace();

  /** The stream that everything is enqueued on, a {@code cudaStream_t}; 0 on the CPU. */
  long stream();

  /**
   * Enqueues from now on on a stream of the caller's, behind what is enqueued already. Never waits.
   *
   * @throws IllegalArgumentException if it is not one of this device
   * @throws IllegalStateException if it, or the stream until now, is captured into a graph
   */
  void useStream(long stream);

  /** As {@link #useStream}, on the stream that this device began with. */
  void useOwnStream();

  /** Whether what is enqueued now is captured into a graph instead of run. */
  boolean isCapturing();

  /**
   * @throws IllegalArgumentException if the kernels cannot reach this address
   */
  void requireReachable(long address);

  /**
   * Uninitialised memory, aligned to at least 64 bytes; 0 bytes give address 0.
   *
   * @throws DeviceMemoryException if the device has not that much
   * @throws IllegalStateException while the stream is captured into a graph
   */
  long allocate(long bytes);

  /** Gives back what {@link #allocate} returned; 0 is allowed. May wait for the device. */
  void free(long address);

  /** Enqueues filling with zero bytes. */
  void zero(long address, long bytes);

  /** Copies from host memory; {@code host} may be reused when this returns. */
  void copyFromHost(long address, Pointer host, long bytes);

  /** Copies to host memory after everything enqueued before, and waits for it. */
  void copyToHost(Pointer host, long address, long bytes);

  /** Whether everything enqueued has run. Never waits. */
  boolean isIdle();

  /** Throws what is known to have failed on it. Never waits. Any thread may ask. */
  void requireAlive();

  /** This replica's control words, in memory that the host and the kernels both see. */
  Control control();

  /** Bytes of workspace that the kernels need for tensors of this many channels. */
  long workspaceBytes(long channels);

  /** Enqueues {@code syncbn_*_stats}. */
  void stats(syncbn_stats_args args);

  /** Enqueues {@code syncbn_*_normalize}. */
  void normalize(syncbn_normalize_args args);

  /** Enqueues {@code syncbn_*_backward_reduce}. */
  void backwardReduce(syncbn_backward_reduce_args args);

  /** Enqueues {@code syncbn_*_backward_input}. */
  void backwardInput(syncbn_backward_input_args args);

  /** Enqueues {@code syncbn_*_copy}. */
  void copy(syncbn_copy_args args);
}
