package io.github.syncbn4j.cli.bench;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The host's clock, and how long the threads that compute have waited for a processor, by what
 * Linux says of each: time in a run queue.
 *
 * <p>Those are the calling thread and those that native code started from it, which inherit its
 * name; threads of the JVM have names of their own.
 */
class Waits implements Clock {
  private static final Path TASKS = Path.of("/proc/self/task");
  private static final long LONGEST_SETTLING_NANOS = 50_000_000;

  private final Path self = thread();
  private List<Path> threads = List.of();

  private static Path thread() {
    try {
      return TASKS.resolve(Path.of("/proc/thread-self").toRealPath().getFileName());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public double nanos(Runnable work) {
    long begin = System.nanoTime();
    work.run();
    return System.nanoTime() - begin;
  }

  /** Finds the threads; after they have been started. */
  @Override
  public void find() {
    List<Path> found = new ArrayList<>();
    try (DirectoryStream<Path> all = Files.newDirectoryStream(TASKS)) {
      String name = Files.readString(self.resolve("comm"));
      for (Path task : all) {
        if (text(task, "comm").equals(name)) {
          found.add(task);
        }
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    threads = found;
  }

  /** Of all threads together. */
  @Override
  public long waited() {
    long sum = 0;
    for (Path thread : threads) {
      String[] fields = text(thread, "schedstat").split(" ");
      if (fields.length > 1) {
        sum += Long.parseLong(fields[1]);
      }
    }
    return sum;
  }

  /** Returns when no thread but the calling one runs, as those do that spin before they sleep. */
  @Override
  public void settle() {
    long begin = System.nanoTime();
    while (threads.stream().anyMatch(this::isAnotherThatRuns)
        && System.nanoTime() - begin < LONGEST_SETTLING_NANOS) {
      Thread.onSpinWait();
    }
  }

  private boolean isAnotherThatRuns(Path thread) {
    if (thread.equals(self)) {
      return false;
    }
    // The name, in parentheses, may hold anything; the state is behind it.
    String stat = text(thread, "stat");
    int state = stat.lastIndexOf(')') + 2;
    return state < stat.length() && stat.charAt(state) == 'R';
  }

  /** Empty if the thread has ended. */
  private static String text(Path thread, String file) {
    try {
      return Files.readString(thread.resolve(file));
    } catch (IOException e) {
      return "";
    }
  }
}
