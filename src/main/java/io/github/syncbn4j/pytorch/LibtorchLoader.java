package io.github.syncbn4j.pytorch;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.global.torch;

/**
 * Loads libtorch in one process of a machine after the other.
 *
 * <p>JavaCPP unpacks libtorch, some 300 MB, into its cache where it is loaded for the first time. A
 * process that loads it while another still unpacks it may map a file that is not complete, and the
 * JVM ends with SIGBUS (JavaCPP 1.5.13). A job with a process a GPU therefore calls {@link #load}
 * before anything else of bytedeco PyTorch.
 *
 * <p>Each process takes its turn, about a second once libtorch is unpacked: with some hundred that
 * share one cache the last ones wait for minutes.
 */
public final class LibtorchLoader {
  /** Unpacking takes seconds; loading what is unpacked about one. */
  private static final Duration PATIENCE = Duration.ofMinutes(5);

  private static final long POLL_MILLIS = 20;

  private LibtorchLoader() {}

  /**
   * Returns when libtorch is loaded. Any thread. A later call takes its turn again.
   *
   * @throws IllegalStateException if another process has been loading for 5 minutes, or the thread
   *     is interrupted meanwhile
   * @throws UncheckedIOException if JavaCPP's cache cannot be written
   * @throws LinkageError if libtorch cannot be loaded
   */
  public static void load() {
    try {
      load(Loader.getCacheDir().toPath().resolve(".libtorch.lock"), PATIENCE);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  static void load(Path file, Duration patience) throws IOException {
    long deadline = System.nanoTime() + patience.toNanos();
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
      while (!loaded(channel)) {
        if (System.nanoTime() > deadline) {
          throw new IllegalStateException(
              "another process has held %s for %d ms, while it loads libtorch: is it alive?"
                  .formatted(file, patience.toMillis()));
        }
        Thread.sleep(POLL_MILLIS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while another process loads libtorch", e);
    }
  }

  private static boolean loaded(FileChannel channel) throws IOException {
    try (FileLock lock = channel.tryLock()) {
      if (lock == null) {
        return false;
      }
      Loader.load(torch.class);
      return true;
    } catch (OverlappingFileLockException e) {
      return false; // another thread
    }
  }
}
