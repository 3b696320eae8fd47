package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.function.Consumer;
import java.util.function.Function;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch;

/** A thread a replica. */
final class Threads {
  private Threads() {}

  /** Runs {@code action} for each replica at once. Throws what the first failing rank threw. */
  @SuppressWarnings("try")
  static void onEach(ReplicaGroup group, Consumer<Replica> action) {
    fromEach(
        group,
        replica -> {
          try (PointerScope scope = new PointerScope()) {
            action.accept(replica);
          }
          return null;
        });
  }

  /** As {@link #onEach}, with a result of each, in rank order. */
  static <T> List<T> fromEach(ReplicaGroup group, Function<Replica, T> action) {
    List<FutureTask<T>> tasks = new ArrayList<>();
    for (Replica replica : group.replicas()) {
      FutureTask<T> task =
          new FutureTask<>(
              () -> {
                torch.set_num_threads(1);
                return action.apply(replica);
              });
      tasks.add(task);
      new Thread(task, "replica-" + replica.rank()).start();
    }
    List<T> results = new ArrayList<>();
    RuntimeException failure = null;
    for (FutureTask<T> task : tasks) {
      try {
        results.add(task.get());
      } catch (ExecutionException e) {
        failure = failure == null ? failureOf(e) : failure;
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }
    if (failure != null) {
      throw failure;
    }
    return results;
  }

  private static RuntimeException failureOf(ExecutionException e) {
    return e.getCause() instanceof RuntimeException cause
        ? cause
        : new IllegalStateException(e.getCause());
  }
}
