package io.github.syncbn4j.failures;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.failures.FailureTable.Seen;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * Three replicas of one process, one of which goes wrong in a step, and what the others see of it.
 * Afterwards the group is closed and a new one takes a step.
 */
abstract class OneProcess {
  static final int REPLICAS = 3;
  static final int LAST = REPLICAS - 1;
  static final Duration TIMEOUT = Duration.ofSeconds(2);

  /** Of a group in which nothing goes wrong, however slow the machine is. */
  private static final Duration PATIENCE = Duration.ofSeconds(20);

  /** The others' last kernels, or the abort: either may come first. */
  private static final String WHO_WAS_FASTER = "unchanged, or differs as is told";

  private static final Duration LIMIT = TIMEOUT.plusSeconds(1);

  /** A group of {@link #REPLICAS} replicas. */
  abstract ReplicaGroup group(Duration timeout);

  /** Has a device, or a call for it, fail when it comes to that. */
  void injectDeath(Failure failure, int rank, int kernelsBefore, int collectivesBefore) {
    throw new UnsupportedOperationException("nothing here can die: " + failure);
  }

  /** Has the next allocations fail. */
  void injectOutOfMemory(int allocationsBefore) {
    throw new UnsupportedOperationException("memory cannot be taken away here");
  }

  /** A device does nothing any more, or goes on. */
  void stall(int rank, boolean on) {
    throw new UnsupportedOperationException("a device cannot be stopped here");
  }

  /** Takes all of it back. */
  void takeBack() {}

  // ------------------------------------------------------------------------------------------
  // one thread for all replicas

  /** What the one thread sees, which is all ranks. */
  Seen withOneThread(Failure failure, int rank) throws Exception {
    Training training = new Training(group(TIMEOUT));
    RuntimeException thrown = null;
    double seconds;
    String state;
    try {
      training.step();
      Changes changes = new Changes(training);
      long start = System.nanoTime();
      try {
        stepThatGoesWrong(training, failure, rank);
      } catch (RuntimeException e) {
        thrown = e;
      }
      seconds = secondsSince(start);
      takeBack();
      assertThat(thrown).as("the step ends").isNotNull();
      state = changes.since(thrown);
      RuntimeException failed = training.group.failure().orElse(null);
      assertThat(failed).as("what the group failed of, if it did").isIn(thrown, null);
      if (failed == null) {
        training.step(); // it was refused, and goes on
      }
    } finally {
      takeBack();
      close(training);
    }
    newGroupWorks();
    String text = thrown.getMessage();
    if (failure == Failure.STALLS) {
      text += "; suppressed: " + thrown.getSuppressed()[0].getMessage();
    }
    if (failure == Failure.DIES_AFTER) {
      state = WHO_WAS_FASTER;
    }
    return seen(thrown, text, seconds, state);
  }

  private void stepThatGoesWrong(Training training, Failure failure, int rank) {
    Training.Layer a = training.first;
    switch (failure) {
      case DIES_BEFORE -> injectDeath(failure, rank, rank, 0);
      case DIES_IN -> injectDeath(failure, rank, 0, rank);
      case DIES_AFTER -> injectDeath(failure, rank, REPLICAS + rank, 0);
      case STALLS -> stall(rank, true);
      case OUT_OF_MEMORY -> {
        injectOutOfMemory(rank);
        a.layer.forward(a.x, a.y, a.x, null, true).close();
      }
      case THROWS -> {
        a.layer.forward(a.x, a.y, true).close();
        throw new IllegalStateException("no more images");
      }
      case WRONG_CHANNELS -> a.layer.forward(with(a.x, rank, training.wide.x), a.y, true);
      case WRONG_DTYPE -> a.layer.forward(with(a.x, rank, training.exact.x), a.y, true);
      case MISSING -> {
        List<DeviceTensor> others = new ArrayList<>(a.x);
        others.remove(rank);
        a.layer.forward(others, a.y, true);
      }
      default -> throw new IllegalArgumentException(failure.toString());
    }
    training.step();
  }

  private static <T> List<T> with(List<T> list, int i, List<T> other) {
    List<T> changed = new ArrayList<>(list);
    changed.set(i, other.get(i));
    return changed;
  }

  // ------------------------------------------------------------------------------------------
  // a thread a replica

  /** What the threads of the other ranks see. */
  Seen withThreads(Failure failure, int faulty) throws Exception {
    Training training = new Training(group(TIMEOUT));
    ExecutorService threads = Executors.newFixedThreadPool(REPLICAS);
    try {
      Changes changes;
      if (failure != Failure.MISSING) {
        join(onAll(threads, training, replica -> training.step(replica)));
      }
      changes = new Changes(training);
      CountDownLatch othersAreThere = new CountDownLatch(REPLICAS - 1);
      double[] seconds = new double[REPLICAS];
      List<Future<RuntimeException>> ends =
          onAll(
              threads,
              training,
              replica -> {
                long start = System.nanoTime();
                try {
                  if (replica.rank() == faulty) {
                    goWrong(training, replica, failure, othersAreThere);
                  } else if (failure.isDeath()) {
                    training.enqueue(replica);
                    othersAreThere.countDown(); // they make no call that could fail instead
                    replica.synchronize();
                  } else {
                    training.step(replica);
                  }
                } finally {
                  seconds[replica.rank()] = secondsSince(start);
                }
              });
      List<RuntimeException> thrown = join(ends);
      takeBack();
      RuntimeException failed = training.group.failure().orElseThrow();
      double slowest = 0;
      for (int rank = 0; rank < REPLICAS; rank++) {
        if (rank != faulty) {
          RuntimeException e = thrown.get(rank);
          assertThat(e == failed || e.getCause() == failed || failed.getCause() == e)
              .as("rank %d threw %s, the group failed of %s", rank, e, failed)
              .isTrue();
          slowest = Math.max(slowest, seconds[rank]);
        }
      }
      String state = changes.since(failed);
      close(training);
      newGroupWorks();
      return seen(failed, slowest, failure == Failure.DIES_AFTER ? WHO_WAS_FASTER : state);
    } finally {
      takeBack();
      threads.shutdownNow();
      close(training);
    }
  }

  private void goWrong(
      Training training, Replica replica, Failure failure, CountDownLatch othersAreThere)
      throws InterruptedException {
    switch (failure) {
      case DIES_BEFORE, DIES_IN, DIES_AFTER -> {
        assertThat(othersAreThere.await(20, TimeUnit.SECONDS)).isTrue();
        injectDeath(failure, replica.rank(), failure == Failure.DIES_AFTER ? 1 : 0, 0);
        training.step(replica);
      }
      case STALLS -> {
        Thread.sleep(TIMEOUT.toMillis() * 2);
        training.step(replica);
      }
      case OUT_OF_MEMORY -> {
        injectOutOfMemory(0);
        training.first.forwardWithResidual(replica);
      }
      case THROWS -> {
        training.first.forward(replica);
        throw new IllegalStateException("no more images");
      }
      case WRONG_ORDER -> training.second.comeTo(replica);
      case WRONG_CHANNELS -> training.wide.comeTo(replica);
      case WRONG_DTYPE -> training.exact.comeTo(replica);
      case MISSING -> {}
    }
  }

  private interface Task {
    void run(Replica replica) throws Exception;
  }

  private static List<Future<RuntimeException>> onAll(
      ExecutorService threads, Training training, Task task) {
    List<Future<RuntimeException>> ends = new ArrayList<>();
    for (Replica replica : training.group.replicas()) {
      ends.add(
          threads.submit(
              () -> {
                try {
                  task.run(replica);
                  return null;
                } catch (RuntimeException e) {
                  return e;
                }
              }));
    }
    return ends;
  }

  private static List<RuntimeException> join(List<Future<RuntimeException>> ends) throws Exception {
    List<RuntimeException> thrown = new ArrayList<>();
    for (Future<RuntimeException> end : ends) {
      thrown.add(end.get(20, TimeUnit.SECONDS));
    }
    return thrown;
  }

  // ------------------------------------------------------------------------------------------

  /** Which replicas' state is another than it was. */
  private static final class Changes {
    private final Training training;
    private final List<String> before;

    Changes(Training training) {
      this.training = training;
      this.before = states();
    }

    private List<String> states() {
      return training.group.replicas().stream().map(training::state).toList();
    }

    /**
     * @param failure which has to say it if the replicas are not the same any more
     */
    String since(RuntimeException failure) {
      List<String> after = states();
      Set<Integer> changed = new TreeSet<>();
      for (int rank = 0; rank < REPLICAS; rank++) {
        if (!after.get(rank).equals(before.get(rank))) {
          changed.add(rank);
        }
      }
      if (Set.copyOf(after).size() == 1) {
        return changed.isEmpty() ? "unchanged" : "the same on all";
      }
      assertThat(failure.getSuppressed())
          .as("state changed on %s", changed)
          .anyMatch(
              note ->
                  note.getMessage().startsWith("states differ")
                      && note.getMessage().endsWith("rank(s) " + changed));
      return "differs, as is told";
    }
  }

  private static Seen seen(RuntimeException e, double seconds, String state) {
    return seen(e, e.getMessage(), seconds, state);
  }

  private static Seen seen(RuntimeException e, String text, double seconds, String state) {
    assertThat(seconds).as("seconds until %s", e).isLessThan(LIMIT.toMillis() / 1e3);
    return new Seen(e.getClass().getSimpleName(), text, seconds, state);
  }

  private static double secondsSince(long start) {
    return (System.nanoTime() - start) / 1e9;
  }

  /** Somebody has seen what the group failed of. */
  private static void close(Training training) {
    long start = System.nanoTime();
    training.close();
    assertThat(secondsSince(start)).as("seconds to close").isLessThan(LIMIT.toMillis() / 1e3);
  }

  private void newGroupWorks() {
    try (Training next = new Training(group(PATIENCE))) {
      next.step();
    }
  }
}
