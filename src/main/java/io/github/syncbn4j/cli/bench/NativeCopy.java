package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.device.Device;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.bytedeco.javacpp.Loader;

/**
 * What is measured against, and what Java cannot say: copies by several kinds of stores, on threads
 * that wait for each other as the kernels' do; memory in large pages.
 */
final class NativeCopy implements AutoCloseable {
  /** Native code knows them by their order. */
  enum Kind {
    MEMCPY,
    LOOP,
    NON_TEMPORAL
  }

  private long copier;

  static {
    try {
      File library =
          Loader.cacheResource(Device.class, Loader.getPlatform() + "/libsyncbn_bench.so");
      if (library == null) {
        throw new UnsatisfiedLinkError(
            "no libsyncbn_bench.so on the class path: it is in no jar, scripts/syncbn bench builds it");
      }
      System.load(library.getAbsolutePath());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /**
   * @param threads the calling one included
   */
  NativeCopy(int threads) {
    copier = start(threads);
    if (copier == 0) {
      throw new OutOfMemoryError("cannot start %d threads".formatted(threads));
    }
  }

  /** {@code to} is aligned to 64 bytes. */
  void run(Kind kind, long to, long from, long bytes) {
    copy(copier, kind.ordinal(), to, from, bytes);
  }

  /** Aligned to 2 MB; given back by {@link #free}. */
  static long allocated(long bytes) {
    long address = allocate(bytes);
    if (address == 0) {
      throw new OutOfMemoryError("no memory for %d bytes".formatted(bytes));
    }
    return address;
  }

  @Override
  public void close() {
    if (copier != 0) {
      stop(copier);
      copier = 0;
    }
  }

  private static native long start(int threads);

  private static native void stop(long copier);

  private static native void copy(long copier, int kind, long to, long from, long bytes);

  private static native long allocate(long bytes);

  static native void free(long address);

  /** Freed memory stays with the process, from now on. Before libtorch is loaded. */
  static native void keepFreedMemory();
}
