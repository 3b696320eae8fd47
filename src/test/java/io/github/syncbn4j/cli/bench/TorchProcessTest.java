package io.github.syncbn4j.cli.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.DType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * What is made of what {@code scripts/peers} print, by a script of bash that stands in for them.
 */
class TorchProcessTest {
  @TempDir Path folder;
  private final List<Problem> problems = new ArrayList<>();

  @BeforeEach
  void twoProblems() {
    Suite.small.addBothLayouts(problems, 4, 3, 5, DType.FLOAT32, true, Pass.PLAIN);
  }

  /** Called as {@code bash SCRIPT --cases --replicas 2}. */
  private TorchProcess process(String text) throws IOException {
    return new TorchProcess(2, "bash", Files.writeString(folder.resolve("script"), text));
  }

  @Test
  void graphsOfEachCase_areResults_ofAsManyReplicas() throws IOException {
    List<Result> results =
        process(
                """
                [ "$*" = "--cases --replicas 2" ] || exit 2
                while read -r line; do
                  start=${line%\\}}
                  for measured in graph calls; do
                    for pass in copy forward; do
                      echo "$start, \\"impl\\": \\"torch_syncbn\\", \\"pass\\": \\"$pass\\", \\"measured\\": \\"$measured\\",\
                 \\"median_us\\": 8, \\"p10_us\\": 7, \\"p90_us\\": 9, \\"copies\\": 2, \\"max_error\\": 1e-7}"
                    done
                  done
                done
                """)
            .results(problems);
    assertThat(results).extracting(Result::problem).containsExactlyElementsOf(problems);
    assertThat(results)
        .allMatch(result -> result.impl().equals("torch_syncbn") && result.pass() == Pass.FORWARD)
        .allMatch(result -> result.times().median() == 8 && result.copies() == 2)
        .allMatch(result -> result.replicas() == 2);
    assertThat(results.get(0).times().ratio(Times.of(new double[] {3, 4, 5}, 0))).isEqualTo(2);
  }

  @Test
  void whatIsWrong_isSaid() throws IOException {
    TorchProcess process = process("echo WRONG torch_syncbn forward; exit 1");
    assertThatThrownBy(() -> process.results(problems))
        .hasMessageEndingWith("script ended with status 1: WRONG torch_syncbn forward");
  }

  @Test
  void pythonThatIsNotThere_isTheReason() throws IOException {
    Path script = Files.writeString(folder.resolve("script"), "");
    assertThat(new TorchProcess(2, "/absent/python", script).absence())
        .startsWith("/absent/python has no torch that sees 2 GPU(s): ")
        .contains("No such file");
    assertThat(new TorchProcess(2, "python3", folder.resolve("absent")).absence())
        .isEqualTo("there is no " + folder.resolve("absent"));
  }
}
