package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import java.time.Duration;
import java.util.concurrent.CompletionService;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorCompletionService;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A thread for each replica of this process, as networks on several replicas need it. */
public final class ReplicaThreads {
  /** For the others to end after one replica failed. */
  private static final Duration END_TIMEOUT = Duration.ofSeconds(10);

  private ReplicaThreads() {}

  /**
   * Runs {@code action} for every replica of the group that is in this process at once, each in a
   * thread of its own, and waits until all are through.
   *
   * @throws RuntimeException what the first replica failed of; as the cause of an {@link
   *     IllegalStateException} if that is checked. The others would wait for it in vain: the group
   *     is closed, which ends their steps.
   * @throws IllegalStateException if this thread is interrupted; the group is closed then, too
   */
  public static void run(ReplicaGroup group, Consumer<Replica> action) {
    ExecutorService threads = Executors.newFixedThreadPool(group.replicas().size());
    try {
      CompletionService<Void> ended = new ExecutorCompletionService<>(threads);
      for (Replica replica : group.replicas()) {
        ended.submit(
            () -> {
              Thread.currentThread().setName("replica-" + replica.rank());
              action.accept(replica);
            },
            null);
      }
      for (int i = 0; i < group.replicas().size(); i++) {
        await(ended, group);
      }
    } finally {
      threads.shutdown();
      awaitEnd(threads);
    }
  }

  private static void await(CompletionService<Void> ended, ReplicaGroup group) {
    try {
      ended.take().get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw endAll(group, new IllegalStateException("interrupted", e));
    } catch (ExecutionException e) {
      if (e.getCause() instanceof Error error) {
        endAll(group, new IllegalStateException(error));
        throw error;
      }
      throw endAll(
          group,
          e.getCause() instanceof RuntimeException cause
              ? cause
              : new IllegalStateException(e.getCause())); // checked, which Kotlin and Scala do not
    }
  }

  private static RuntimeException endAll(ReplicaGroup group, RuntimeException failure) {
    try {
      group.close();
    } catch (RuntimeException e) {
      failure.addSuppressed(e);
    }
    return failure;
  }

  /** A thread that is still in native code when the JVM ends could crash it. */
  private static void awaitEnd(ExecutorService threads) {
    boolean interrupted = Thread.interrupted(); // it would not wait at all
    try {
      threads.awaitTermination(END_TIMEOUT.toSeconds(), TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      interrupted = true;
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
