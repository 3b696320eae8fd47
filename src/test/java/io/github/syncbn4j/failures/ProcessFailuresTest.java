package io.github.syncbn4j.failures;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.failures.FailureTable.Seen;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Failures of one rank of three processes with a simulated GPU each: {@code docs/failures.md}. The
 * processes outlive the failures, but for those that die of them; after each, the others make a new
 * job at the same port.
 */
@Tag("sim")
@Timeout(120)
@Tag("full") // a JVM for each rank
class ProcessFailuresTest {
  static final int PROCESSES = 3;
  static final Duration TIMEOUT = Duration.ofSeconds(2);
  private static final int LAST = PROCESSES - 1;
  private static final double LIMIT_SECONDS = TIMEOUT.plusSeconds(1).toMillis() / 1e3;
  private static final FailureTable TABLE = new FailureTable("A process a GPU");
  private static final Map<Integer, WorkerProcess> WORKERS = new TreeMap<>();

  @TempDir static Path folder;

  @BeforeAll
  static void start() throws Exception {
    for (int i = 0; i < PROCESSES; i++) {
      WORKERS.put(i, worker());
    }
    for (WorkerProcess worker : WORKERS.values()) {
      worker.hear("ready");
    }
  }

  private static WorkerProcess worker() throws IOException {
    return new WorkerProcess(folder.resolve("errors.log").toFile());
  }

  @AfterAll
  static void end() throws Exception {
    for (WorkerProcess worker : WORKERS.values()) {
      worker.process().destroyForcibly().waitFor(10, TimeUnit.SECONDS);
    }
    TABLE.finish();
  }

  /** What torchrun says to a rank, here as in the workers. */
  static Map<String, String> environment(String rank, String size, String port) {
    return Map.of(
        "RANK", rank,
        "WORLD_SIZE", size,
        "LOCAL_RANK", rank,
        "MASTER_ADDR", "127.0.0.1",
        "SYNCBN_PORT", port);
  }

  @ParameterizedTest
  @EnumSource
  void failsInTime_andTheOthersGoOn(Failure failure) throws Exception {
    TABLE.add(failure, 0, seen(failure, 0));
    TABLE.add(failure, LAST, seen(failure, LAST));
  }

  private static Seen seen(Failure failure, int faulty) throws Exception {
    int port;
    try (ServerSocket free = new ServerSocket(0)) {
      port = free.getLocalPort();
    }
    WORKERS.forEach(
        (rank, worker) -> worker.tell("train", failure.name(), faulty, rank, PROCESSES, port));
    List<Integer> others =
        IntStream.range(0, PROCESSES).filter(rank -> rank != faulty).boxed().toList();
    Seen first = null;
    double slowest = 0;
    Set<String> changes = new HashSet<>();
    for (int rank : others) {
      String[] words = WORKERS.get(rank).hear("seen");
      double seconds = Double.parseDouble(words[2]);
      assertThat(seconds).as("seconds of rank %d: %s", rank, words[5]).isLessThan(LIMIT_SECONDS);
      slowest = Math.max(slowest, seconds);
      changes.add(words[3] + "->" + words[4]);
      if (first == null) {
        String state = words[3].equals(words[4]) ? "unchanged" : "the same on all";
        first = new Seen(words[1], words[5].replace("" + port, "29501"), 0, state);
      }
    }
    assertThat(changes).as("state before and after: %s", first.text()).hasSize(1);
    Seen seen = new Seen(first.exception(), first.text(), slowest, first.state());
    for (int rank : others) {
      requireClosed(rank);
    }
    WorkerProcess wrong = WORKERS.get(faulty);
    if (failure == Failure.STALLS) {
      new ProcessBuilder("kill", "-CONT", "" + wrong.process().pid()).start().waitFor();
    }
    for (int i = 0; i < others.size(); i++) {
      WORKERS.get(others.get(i)).tell("again", i, others.size(), port);
    }
    if (failure.isDeath()) {
      assertThat(wrong.process().waitFor(10, TimeUnit.SECONDS)).as("has died").isTrue();
      WORKERS.put(faulty, worker());
      WORKERS.get(faulty).hear("ready");
    } else {
      wrong.hear("seen");
      requireClosed(faulty);
    }
    for (int rank : others) {
      WORKERS.get(rank).hear("works");
    }
    return seen;
  }

  private static void requireClosed(int rank) throws InterruptedException {
    String[] words = WORKERS.get(rank).hear("closed");
    assertThat(Double.parseDouble(words[1])).as("seconds to close").isLessThan(LIMIT_SECONDS);
    assertThat(words[2]).as("nothing leaks").isEqualTo("true");
  }
}
