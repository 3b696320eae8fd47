package io.github.syncbn4j.processes;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.syncbn4j.cli.Syncbn;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** {@code syncbn train} as torchrun starts it: a process for each of two simulated GPUs. */
@Tag("sim")
@Timeout(180)
@Tag("full") // a JVM for each rank
class TrainProcessesTest {
  private static final String GPU = "--device=gpu";
  private static final String SYNC = "--norm=sync";

  @TempDir Path folder;

  private RankProcess train(Map<String, String> environment, String out, String... more) {
    List<String> arguments = new ArrayList<>(List.of("train", "--batch=14"));
    arguments.add("--out=" + folder.resolve(out));
    arguments.addAll(List.of(more));
    return new RankProcess(folder, environment, Syncbn.class, arguments);
  }

  /** What each of two processes prints. */
  private List<List<String>> trainInTwo(String out, String... more) throws IOException {
    try (ServerSocket agent = new ServerSocket(0)) {
      List<RankProcess> ranks = new ArrayList<>();
      for (int rank = 0; rank < 2; rank++) {
        ranks.add(train(RankProcess.torchrun(rank, 2, agent.getLocalPort()), out, more));
      }
      return ranks.stream().map(RankProcess::lines).toList();
    }
  }

  private JsonNode json(String out) throws IOException {
    return new ObjectMapper().readTree(folder.resolve(out).resolve("train.json").toFile());
  }

  @Test
  void twoProcesses_giveTheBitsOfOneWithTwoReplicas_resumedToo() throws IOException {
    String saved = folder.resolve("saved").toString();
    List<String> one = train(Map.of(), "one", GPU, SYNC, "--epochs=2", "--replicas=2").lines();
    assertThat(one).contains("2 replicas x 14 images, 2 epochs of 50 steps, seed 1");
    List<List<String>> first = trainInTwo("two", GPU, SYNC, "--epochs=1", "--checkpoint=" + saved);
    assertThat(first.get(0))
        .contains("2 replicas x 14 images, 1 epochs of 50 steps, seed 1")
        .anyMatch(line -> line.contains("on 2 processes, a GPU each"));
    assertThat(first.get(1)).isEmpty();
    List<List<String>> second = trainInTwo("two", GPU, SYNC, "--epochs=2", "--resume=" + saved);
    assertThat(second.get(0)).contains("resumed: sync at step 50");
    assertThat(second.get(1)).isEmpty();
    for (String curve :
        List.of("loss_by_step", "test_accuracy_by_epoch", "test_accuracy_with_mean_statistics")) {
      assertThat(json("two").get("sync").get(curve))
          .as(curve)
          .isEqualTo(json("one").get("sync").get(curve));
    }
    assertThat(json("two").get("whole_batch_loss")).isEqualTo(json("one").get("whole_batch_loss"));
  }

  @Test
  void optionsThatSeveralProcessesDoNotTakePartWith_areRefused() {
    String here = "this is rank 1 of 2 processes";
    Map<String, String> environment = RankProcess.torchrun(1, 2, 29500);
    assertThat(train(environment, "out").lines())
        .containsExactly(
            "syncbn: --device is cpu, but "
                + here
                + ", and CPU replicas in several processes are not offered: --device gpu (see syncbn train --help)");
    assertThat(train(environment, "out", GPU).lines())
        .containsExactly(
            "syncbn: --norm is both, but "
                + here
                + ", which train with --norm sync only (see syncbn train --help)");
    assertThat(train(environment, "out", GPU, SYNC, "--replicas=3").lines())
        .containsExactly(
            "syncbn: --replicas is 3, but " + here + ", a replica each (see syncbn train --help)");
  }
}
