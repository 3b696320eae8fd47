package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.platform.commons.annotation.Testable;
import org.junit.platform.commons.support.AnnotationSupport;

/**
 * Every command in README.md and docs is run here, by {@link LessonsTest}, or by the test that the
 * table below names; or the table says why it cannot be run.
 */
class CommandsTest {
  private static final int LIMIT_SECONDS = 60;
  private static final int FULL_LIMIT_SECONDS = 1200;
  private static final int GPUS = 4;

  private enum How {
    /** Here, every time. */
    RUN,
    /** Here, every time, on simulated GPUs. */
    RUN_SIMULATED,
    /** Here, with the tests that take long. */
    RUN_FULL,
    /** By the test that is named. */
    TEST,
    /** Nowhere, for the reason that is given. */
    CANNOT
  }

  /**
   * @param command a regular expression
   */
  private record Entry(String command, How how, String which) {
    boolean matches(String line) {
      return Pattern.matches(command, line);
    }
  }

  private static final String NEEDS_GPU = "needs a GPU and CUDA's nvcc";
  private static final String NEEDS_LAUNCHER =
      "a launcher, and a program of the reader's; ProcessesTest sets the variables that it sets";
  private static final String BUILD =
      "a build within the build; the same phases are in CI's verify";

  private static final List<Entry> TABLE =
      List.of(
          new Entry("scripts/syncbn info", How.RUN, ""),
          new Entry("scripts/syncbn train --help", How.RUN, ""),
          new Entry("SYNCBN_SIM_DEVICES=2 scripts/syncbn replay .*", How.RUN, ""),
          new Entry("scripts/syncbn replay --device gpu src/.*", How.RUN_SIMULATED, ""),
          new Entry("scripts/syncbn train", How.RUN_FULL, ""),
          new Entry(
              "scripts/syncbn run docs/lessons/02-thread-a-gpu/ThreadAGpu.java gpu",
              How.CANNOT,
              "needs GPUs and the libtorch for them"),
          new Entry("scripts/syncbn run FILE.java", How.TEST, "docs.LessonsTest"),
          new Entry("scripts/syncbn convert .*", How.TEST, "cli.ConvertTest"),
          new Entry("scripts/syncbn bench .*", How.TEST, "cli.bench.BenchJobTest"),
          new Entry(
              "SYNCBN_SIM_DEVICES=4 scripts/syncbn train --device gpu",
              How.TEST,
              "cli.SimulatedTrainTest"),
          new Entry(
              "(torchrun --no-python --nproc-per-node 2 )?scripts/syncbn train --device gpu --norm"
                  + " sync",
              How.TEST,
              "processes.TrainProcessesTest"),
          new Entry(
              "mvn test -Dtest=\"\\*FailuresTest\" .*", How.TEST, "failures.ProcessFailuresTest"),
          new Entry("mvn -B -ntp verify", How.CANNOT, "it runs this test; .ci/run is this command"),
          new Entry("mvn -B -ntp install -DskipTests( -Prelease)?", How.CANNOT, BUILD),
          new Entry("mvn -Pjmh .*", How.CANNOT, "takes minutes, on a quiet machine"),
          new Entry("sudo apt install libnccl2", How.CANNOT, "changes the machine"),
          new Entry("export SYNCBN_CUDA_ARCHITECTURES=80", How.CANNOT, "only sets a variable"),
          new Entry("(scripts/|DIR/|/tmp/bundle/)?gpu-(bundle|verify) .*", How.CANNOT, NEEDS_GPU),
          new Entry("java -cp app.jar:... Main", How.CANNOT, "a program of the reader's"),
          new Entry("(torchrun|mpirun|srun) .*", How.CANNOT, NEEDS_LAUNCHER));

  @TempDir private Path folder;

  private static List<Path> pages() throws IOException {
    List<Path> pages = new ArrayList<>(List.of(Path.of("README.md")));
    try (Stream<Path> files = Files.walk(Path.of("docs"))) {
      files.filter(file -> file.toString().endsWith(".md")).sorted().forEach(pages::add);
    }
    return pages;
  }

  /** Those that LessonsTest does not run. */
  private static Set<String> commands() throws IOException {
    Set<String> commands = new LinkedHashSet<>();
    for (Path file : pages()) {
      Page page = Page.of(file);
      List<String> found = new ArrayList<>(page.commands());
      if (LessonsTest.lessons().contains(file.getParent())) {
        found.removeAll(LessonsTest.commands(page));
      }
      commands.addAll(found);
    }
    return commands;
  }

  private static List<String> commands(How how) throws IOException {
    return commands().stream().filter(command -> entry(command).how() == how).toList();
  }

  private static Entry entry(String command) {
    return TABLE.stream()
        .filter(entry -> entry.matches(command))
        .findFirst()
        .orElseThrow(
            () ->
                new AssertionError(
                    "run by no test: '%s'. CommandsTest.TABLE says how each is run"
                        .formatted(command)));
  }

  @Test
  void everyCommand_isInTheTable_whichHasNoOther() throws IOException {
    Set<String> commands = commands();
    assertThat(commands.stream().map(CommandsTest::entry).distinct())
        .containsExactlyInAnyOrderElementsOf(TABLE);
    assertThat(commands).hasSizeGreaterThan(TABLE.size());
  }

  @Test
  void testsInTheTable_exist() {
    assertThat(TABLE)
        .filteredOn(entry -> entry.how() == How.TEST)
        .allSatisfy(
            entry ->
                assertThat(
                        Class.forName("io.github.syncbn4j." + entry.which()).getDeclaredMethods())
                    .anyMatch(method -> AnnotationSupport.isAnnotated(method, Testable.class)));
  }

  @Test
  void pageWithCommandsOfEveryKind_isRead() throws IOException {
    Path file = folder.resolve("page.md");
    Files.writeString(
        file,
        """
        Run `scripts/a
        one`, not `scripts/a`, and

            mvn  b   # a comment
            # another
            unknown c

        which prints

            java is not a command here
        after text
            torchrun nor this

        ```sh
        A=1 cd e
        ```
        ```java
        java f
        ```
        """);
    assertThat(Page.of(file).commands())
        .containsExactly(
            "mvn b", "unknown c", "java is not a command here", "A=1 cd e", "scripts/a one");
  }

  static List<String> run() throws IOException {
    return commands(How.RUN);
  }

  @ParameterizedTest
  @MethodSource
  void run(String command) throws Exception {
    requireRuns(command, 0, LIMIT_SECONDS);
  }

  static List<String> runSimulated() throws IOException {
    return commands(How.RUN_SIMULATED);
  }

  @ParameterizedTest
  @MethodSource
  void runSimulated(String command) throws Exception {
    requireRuns(command, GPUS, LIMIT_SECONDS);
  }

  static List<String> runFull() throws IOException {
    return commands(How.RUN_FULL);
  }

  @ParameterizedTest
  @MethodSource
  @Tag("full")
  void runFull(String command) throws Exception {
    requireRuns(command, 0, FULL_LIMIT_SECONDS);
  }

  private void requireRuns(String command, int gpus, int limitSeconds) throws Exception {
    try (Checkout checkout = new Checkout(folder)) {
      assertThat(checkout.run(command, gpus, limitSeconds)).isNotEmpty();
    }
  }
}
