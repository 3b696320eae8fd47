package io.github.syncbn4j.processes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.ReplicaGroup;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A job of several processes, a simulated GPU each, as torchrun starts them. */
@Tag("sim")
@Timeout(120)
class ProcessesTest {
  @TempDir Path folder;

  private List<RankProcess> start(Class<?> main, int worldSize, int port, String... arguments) {
    List<RankProcess> ranks = new ArrayList<>();
    for (int rank = 0; rank < worldSize; rank++) {
      Map<String, String> environment = new HashMap<>(RankProcess.torchrun(rank, worldSize, port));
      ranks.add(new RankProcess(folder, environment, main, List.of(arguments)));
    }
    return ranks;
  }

  /** torchrun's agent has MASTER_PORT: it is held here all the time. */
  @Test
  void processes_trainTogether_besideTheLaunchersOwnPort() throws Exception {
    try (ServerSocket agent = new ServerSocket(0)) {
      List<RankProcess> ranks = start(RankMain.class, 2, agent.getLocalPort(), "3", "30000");
      List<String> first = ranks.get(0).lines();
      List<String> second = ranks.get(1).lines();
      assertThat(first).startsWith("rank 0 of 2", "step 0", "step 1", "step 2").endsWith("closed");
      assertThat(second).startsWith("rank 1 of 2").endsWith("closed");
      // The same random gamma, the same statistics.
      assertThat(second.subList(1, second.size())).isEqualTo(first.subList(1, first.size()));
    }
  }

  @Test
  void rankThatIsKilled_isNamedToTheOthers_inTime() throws Exception {
    try (ServerSocket agent = new ServerSocket(0)) {
      List<RankProcess> ranks = start(RankMain.class, 3, agent.getLocalPort(), "1000000", "5000");
      ranks.get(2).await("step 3");
      long start = System.nanoTime();
      ranks.get(2).process().destroyForcibly();
      for (RankProcess survivor : ranks.subList(0, 2)) {
        assertThat(survivor.lines().get(survivor.lines().size() - 1))
            .startsWith("failed: CollectiveException: rank 2 was lost");
      }
      assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofSeconds(6));
    }
  }

  @Test
  void rankThatNeverComes_isNamed() throws Exception {
    try (ServerSocket agent = new ServerSocket(0)) {
      Map<String, String> environment = RankProcess.torchrun(0, 2, agent.getLocalPort());
      List<String> lines =
          new RankProcess(folder, environment, RankMain.class, List.of("1", "1000")).lines();
      assertThat(lines)
          .containsExactly(
              "failed: CollectiveException: rank(s) [1] of 2 did not come within 1.000 s");
    }
  }

  @Test
  void rankThatCannotConnect_isNamedToTheOthers_beforeTheTimeout() throws Exception {
    try (ServerSocket agent = new ServerSocket(0)) {
      List<RankProcess> ranks = new ArrayList<>();
      for (int rank = 0; rank < 3; rank++) {
        Map<String, String> environment =
            new HashMap<>(RankProcess.torchrun(rank, 3, agent.getLocalPort()));
        if (rank == 1) {
          environment.put("SYNCBN_SIM_FAULTS", "ncclCommInitRankConfig:1:2");
        }
        List<String> arguments = List.of("1", "60000");
        ranks.add(new RankProcess(folder, environment, RankMain.class, arguments));
      }
      String failure = "gpu:1: ncclCommInitRankConfig failed with 2: unhandled system error";
      assertThat(ranks.get(1).lines().get(0)).startsWith("failed: DeviceException: " + failure);
      for (int rank : new int[] {0, 2}) {
        assertThat(ranks.get(rank).lines().get(0))
            .startsWith("failed: CollectiveException: rank 1 failed: " + failure);
      }
    }
  }

  @Test
  void groupsWithinTheJob_workBesideIt_andAreClosedInAnyOrder() throws Exception {
    try (ServerSocket agent = new ServerSocket(0)) {
      List<RankProcess> ranks = start(SplitMain.class, 4, agent.getLocalPort());
      List<List<String>> lines = new ArrayList<>();
      for (RankProcess rank : ranks) {
        lines.add(rank.lines());
      }
      String refused = "refused: color must be 0 or more, not -1";
      String missing =
          "failed: rank(s) [3] did not come within 3.000 s where rank(s) [0, 1, 2] wait: splitting the group"
              + " (their last call: sum of 1 float32)";
      // Numbered by their keys, the later ranks come first.
      assertThat(lines.get(0))
          .containsExactly(
              refused, "rank 1 of 2, sum 2", "all: 6", missing, "again: sum 2", "closed");
      assertThat(lines.get(2))
          .containsExactly(
              refused, "rank 0 of 2, sum 2", "all: 6", missing, "again: sum 2", "closed");
      assertThat(lines.get(1))
          .containsExactly(refused, "rank 1 of 2, sum 4", "all: 6", missing, "closed");
      assertThat(lines.get(3)).containsExactly(refused, "rank 0 of 2, sum 4", "all: 6", "closed");
    }
  }

  @Test
  void groupInOneProcess_isNotSplit() {
    try (ReplicaGroup group = ReplicaGroup.gpus(0, 1)) {
      assertThatThrownBy(() -> group.split(0, 0))
          .isInstanceOf(IllegalStateException.class)
          .hasMessage(
              "all replicas of this group are in one process: make groups of them with gpus(...)");
    }
  }
}
