package io.github.syncbn4j.device.cpu;

import static io.github.syncbn4j.device.natives.CpuKernels.SYNCBN_OK;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.Control;
import io.github.syncbn4j.device.Device;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceMemoryException;
import io.github.syncbn4j.device.natives.CpuKernels;
import io.github.syncbn4j.device.natives.syncbn_backward_input_args;
import io.github.syncbn4j.device.natives.syncbn_backward_reduce_args;
import io.github.syncbn4j.device.natives.syncbn_control;
import io.github.syncbn4j.device.natives.syncbn_copy_args;
import io.github.syncbn4j.device.natives.syncbn_normalize_args;
import io.github.syncbn4j.device.natives.syncbn_stats_args;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;

/**
 * The host as a device: kernels run on the calling thread and the group's pool, and are done when a
 * call returns.
 */
final class CpuDevice implements Device {
  /** A cache line, so that no two allocations share one and vector loads are aligned. */
  private static final int ALIGNMENT = 64;

  private final String id;
  private final long pool;
  private final Control control;

  CpuDevice(int rank, long pool) {
    this.id = "cpu:" + rank;
    this.pool = pool;
    syncbn_control words = new syncbn_control().retainReference();
    this.control = new Control(words, words.address());
  }

  @Override
  public String id() {
    return id;
  }

  @Override
  public String description() {
    try (BytePointer info = CpuKernels.syncbn_cpu_build_info()) {
      return info.getString();
    }
  }

  @Override
  public String memorySpace() {
    return "host";
  }

  @Override
  public long stream() {
    return 0;
  }

  @Override
  public void useStream(long stream) {
    throw new IllegalArgumentException("%s has no streams: 0x%x".formatted(id, stream));
  }

  @Override
  public void useOwnStream() {}

  @Override
  public boolean isCapturing() {
    return false;
  }

  @Override
  public void requireReachable(long address) {}

  @Override
  public long allocate(long bytes) {
    if (bytes == 0) {
      return 0;
    }
    if (bytes > Long.MAX_VALUE - ALIGNMENT - Long.BYTES) {
      throw new DeviceMemoryException(id, "malloc", 0, "no memory for " + bytes + " bytes");
    }
    // The block's own address lies just below the aligned one.
    try (Pointer block = Pointer.malloc(bytes + ALIGNMENT + Long.BYTES)) {
      if (block == null || block.isNull()) {
        throw new DeviceMemoryException(id, "malloc", 0, "no memory for " + bytes + " bytes");
      }
      long aligned = (block.address() + Long.BYTES + ALIGNMENT - 1) & -ALIGNMENT;
      blockOf(aligned).putLong(block.address());
      return aligned;
    }
  }

  @Override
  public void free(long address) {
    if (address != 0) {
      Pointer.free(new Address(blockOf(address).getLong()));
    }
  }

  private static BytePointer blockOf(long aligned) {
    return new BytePointer(new Address(aligned - Long.BYTES));
  }

  @Override
  public void zero(long address, long bytes) {
    if (bytes > 0) {
      Pointer.memset(new Address(address), 0, bytes);
    }
  }

  @Override
  public void copyFromHost(long address, Pointer host, long bytes) {
    if (bytes > 0) {
      Pointer.memcpy(new Address(address), host, bytes);
    }
  }

  @Override
  public void copyToHost(Pointer host, long address, long bytes) {
    if (bytes > 0) {
      Pointer.memcpy(host, new Address(address), bytes);
    }
  }

  @Override
  public boolean isIdle() {
    return true;
  }

  @Override
  public void requireAlive() {}

  @Override
  public Control control() {
    return control;
  }

  @Override
  public long workspaceBytes(long channels) {
    return CpuKernels.syncbn_cpu_workspace_bytes(channels);
  }

  @Override
  public void stats(syncbn_stats_args args) {
    check(CpuKernels.syncbn_cpu_stats(args.stream(pool)), "syncbn_cpu_stats");
  }

  @Override
  public void normalize(syncbn_normalize_args args) {
    check(CpuKernels.syncbn_cpu_normalize(args.stream(pool)), "syncbn_cpu_normalize");
  }

  @Override
  public void backwardReduce(syncbn_backward_reduce_args args) {
    check(CpuKernels.syncbn_cpu_backward_reduce(args.stream(pool)), "syncbn_cpu_backward_reduce");
  }

  @Override
  public void backwardInput(syncbn_backward_input_args args) {
    check(CpuKernels.syncbn_cpu_backward_input(args.stream(pool)), "syncbn_cpu_backward_input");
  }

  @Override
  public void copy(syncbn_copy_args args) {
    check(CpuKernels.syncbn_cpu_copy(args.stream(pool)), "syncbn_cpu_copy");
  }

  private void check(int status, String call) {
    check(id, status, call);
  }

  static void check(String id, int status, String call) {
    if (status != SYNCBN_OK) {
      try (BytePointer text = CpuKernels.syncbn_cpu_last_error()) {
        throw new DeviceException(id, call, status, text.getString());
      }
    }
  }
}
