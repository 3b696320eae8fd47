package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
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
 * Every command in README.md, CONTRIBUTING.md and docs is run here, by {@link LessonsTest}, or by
 * the test that the table below names; or the table says why it cannot be run.
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
  private static final String BUILD = "a build within the build";
  private static final String NEXT_PHASE =
      "the build runs it after this test, with all kernel tests";

  private static final List<Entry> TABLE =
      List.of(
          new Entry("scripts/syncbn train --help", How.RUN, ""),
          new Entry("SYNCBN_SIM_DEVICES=2 scripts/syncbn replay .*", How.RUN, ""),
          new Entry("scripts/syncbn replay --device gpu src/.*", How.RUN_SIMULATED, ""),
          new Entry("scripts/syncbn train", How.RUN_FULL, ""),
          new Entry("scripts/syncbn run FILE.java", How.TEST, "docs.LessonsTest"),
          new Entry("scripts/syncbn convert .*", How.TEST, "cli.ConvertTest"),
          new Entry("scripts/syncbn doctor", How.TEST, "cli.DoctorTest"),
          new Entry("scripts/syncbn doctor --device gpu", How.TEST, "cli.SimulatedDoctorTest"),
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
              "mvn test -DforkCount=1 -Dtest=\"\\*FailuresTest\" .*",
              How.TEST,
              "failures.ProcessFailuresTest"),
          new Entry("mvn( -B -ntp)?( -Prelease)?( -Pfull)? verify( -Pfull)?", How.CANNOT, BUILD),
          new Entry("mvn -B -ntp install -DskipTests( -Prelease)?", How.CANNOT, BUILD),
          new Entry("mvn -B -ntp test -DskipNativeTests -Dtest=.*", How.CANNOT, BUILD),
          new Entry(
              "mvn -B -ntp com.diffplug.spotless:.*:apply", How.CANNOT, "changes the sources"),
          new Entry("clang-format --style=file -i FILE", How.CANNOT, "changes the sources"),
          new Entry("mvn -Pjmh .*", How.CANNOT, "takes minutes, on a quiet machine"),
          new Entry("cmake --build target/native --target test_.*", How.CANNOT, NEXT_PHASE),
          new Entry("target/native/test/test_(cpu|cuda_sim) copy", How.CANNOT, NEXT_PHASE),
          new Entry("ctest --test-dir target/native .*", How.CANNOT, NEXT_PHASE),
          new Entry(
              "scripts/check-reproducible", How.CANNOT, "two releases, in minutes, with nvcc"),
          new Entry("sudo apt install libnccl2", How.CANNOT, "changes the machine"),
          new Entry("rm -r ~/.javacpp/cache/syncbn4j-\\*", How.CANNOT, "changes the machine"),
          new Entry("export SYNCBN_CUDA_ARCHITECTURES=80", How.CANNOT, "only sets a variable"),
          new Entry("gpu-verify --simulated", How.CANNOT, "minutes, and a bundle first"),
          new Entry("(scripts/|DIR/|/tmp/bundle/)?gpu-(bundle|verify) .*", How.CANNOT, NEEDS_GPU),
          new Entry(
              "scripts/syncbn run docs/lessons/02-thread-a-gpu/ThreadAGpu.java gpu",
              How.CANNOT,
              "needs GPUs and the libtorch for them"),
          new Entry("java (-jar|-cp app.jar:... Main)", How.CANNOT, "a program of the reader's"),
          new Entry("(torchrun|mpirun|srun) .*", How.CANNOT, NEEDS_LAUNCHER));

  @TempDir private Path folder;

  private static List<Path> pages() throws IOException {
    List<Path> pages = new ArrayList<>(List.of(Path.of("README.md"), Path.of("CONTRIBUTING.md")));
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
    return commands().stream()
        .filter(command -> entry(command).filter(entry -> entry.how() == how).isPresent())
        .toList();
  }

  /** The first one that matches. */
  private static Optional<Entry> entry(String command) {
    return TABLE.stream().filter(entry -> entry.matches(command)).findFirst();
  }

  @Test
  void everyCommand_isInTheTable_whichHasNoOther() throws IOException {
    Set<String> commands = commands();
    assertThat(commands)
        .as("run by no test: add them to this table, with the way in which each is run")
        .filteredOn(command -> entry(command).isEmpty())
        .isEmpty();
    assertThat(TABLE)
        .as("no such command is in the documentation any more")
        .filteredOn(
            entry ->
                commands.stream().noneMatch(command -> entry(command).equals(Optional.of(entry))))
        .isEmpty();
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
