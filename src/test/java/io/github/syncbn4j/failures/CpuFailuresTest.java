package io.github.syncbn4j.failures;

import io.github.syncbn4j.ReplicaGroup;
import java.time.Duration;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Failures of one of three CPU replicas: {@code docs/failures.md}. */
@Timeout(60)
class CpuFailuresTest extends OneProcess {
  private static final FailureTable ONE_THREAD =
      new FailureTable("One thread for all CPU replicas");
  private static final FailureTable THREADS = new FailureTable("A thread a CPU replica");

  @AfterAll
  static void pageSaysSo() throws Exception {
    for (FailureTable table : new FailureTable[] {ONE_THREAD, THREADS}) {
      for (Failure death :
          new Failure[] {Failure.DIES_BEFORE, Failure.DIES_IN, Failure.DIES_AFTER}) {
        table.addNone(death, "a CPU replica dies with its process, which is that of all");
      }
      table.addNone(Failure.OUT_OF_MEMORY, "the process's memory is that of all");
    }
    ONE_THREAD.addNone(Failure.STALLS, "the one thread is all replicas'");
    ONE_THREAD.addNone(
        Failure.WRONG_ORDER, "the one thread comes with all replicas to the same layer");
    ONE_THREAD.finish();
    THREADS.finish();
  }

  @Override
  ReplicaGroup group(Duration timeout) {
    return ReplicaGroup.builder().cpus(REPLICAS).threads(1).timeout(timeout).build();
  }

  @ParameterizedTest
  @EnumSource(names = {"THROWS", "WRONG_CHANNELS", "WRONG_DTYPE", "MISSING"})
  void withOneThread(Failure failure) throws Exception {
    ONE_THREAD.add(failure, 0, withOneThread(failure, 0));
    ONE_THREAD.add(failure, LAST, withOneThread(failure, LAST));
  }

  @ParameterizedTest
  @EnumSource(
      names = {"STALLS", "THROWS", "WRONG_ORDER", "WRONG_CHANNELS", "WRONG_DTYPE", "MISSING"})
  void withAThreadAReplica(Failure failure) throws Exception {
    THREADS.add(failure, 0, withThreads(failure, 0));
    THREADS.add(failure, LAST, withThreads(failure, LAST));
  }
}
