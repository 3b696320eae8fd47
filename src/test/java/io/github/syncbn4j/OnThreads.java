package io.github.syncbn4j;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A thread a replica. Unlike {@link io.github.syncbn4j.pytorch.ReplicaThreads} it leaves a group of
 * which a replica fails as it is, for tests to look at.
 */
public final class OnThreads {
  private static final long LIMIT_SECONDS = 60;

  private OnThreads() {}

  /** What one replica's thread does. */
  public interface Task {
    void run(Replica replica) throws Exception;
  }

  /** The same with a result. */
  public interface Function<T> {
    T apply(Replica replica) throws Exception;
  }

  /** Runs the task for all replicas at once; throws what the lowest failing rank threw. */
  public static void run(ReplicaGroup group, Task task) throws Exception {
    call(
        group,
        replica -> {
          task.run(replica);
          return null;
        });
  }

  /** As {@link #run}, with a result of each, in rank order. */
  public static <T> List<T> call(ReplicaGroup group, Function<T> function) throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(group.replicas().size());
    try {
      List<Callable<T>> calls = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        calls.add(() -> function.apply(replica));
      }
      List<T> results = new ArrayList<>();
      for (Future<T> call : threads.invokeAll(calls, LIMIT_SECONDS, TimeUnit.SECONDS)) {
        results.add(resultOf(call));
      }
      return results;
    } finally {
      threads.shutdownNow();
    }
  }

  private static <T> T resultOf(Future<T> call) throws Exception {
    if (call.isCancelled()) {
      throw new TimeoutException("a replica's thread hangs");
    }
    try {
      return call.get();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof Exception cause) {
        throw cause;
      }
      throw e;
    }
  }
}
