package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
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
    /** Here, every time, once the build has made the kernels' tests. */
    RUN_BUILT,
    /** Here, every time, to where it needs a bundle: its options and steps are accepted. */
    RUN_WITHOUT_BUNDLE,
    /** Here, with the tests that take long. */
    RUN_FULL,
    /** Here, with the tests that take long, on simulated GPUs. */
    RUN_FULL_SIMULATED,
    /** By the test that is named. */
    TEST,
    /** By CI, as it stands in .ci/run. */
    CI,
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

  private static final Pattern NAMED_IDS = Pattern.compile("(?:-P|exec@)(\\w+)");
  private static final Pattern NAMED_PLUGIN = Pattern.compile("([\\w-]+):([\\d.]+):\\w+");

  private static final String NEEDS_NVCC =
      "builds with CUDA's nvcc; then gpu-verify needs a GPU, or minutes on simulated ones";
  private static final String NEEDS_LAUNCHER =
      "a launcher, and a program of the reader's; ProcessesTest sets the variables that it sets";
  private static final String BUILD = "a build within the build; its names are checked";
  private static final String CTEST = "the build runs it, between the two runs of JUnit";

  private static final List<Entry> TABLE =
      List.of(
          new Entry("scripts/syncbn train --help", How.RUN, ""),
          new Entry("scripts/syncbn doctor( --device gpu)?", How.RUN_SIMULATED, ""),
          new Entry("SYNCBN_SIM_DEVICES=2 scripts/syncbn replay .*", How.RUN, ""),
          new Entry("scripts/syncbn replay --device gpu src/.*", How.RUN_SIMULATED, ""),
          new Entry("scripts/syncbn run docs/lessons/02-.*java gpu", How.RUN_FULL_SIMULATED, ""),
          new Entry("cmake --build target/native --target test_.*", How.RUN_BUILT, ""),
          new Entry("target/native/test/test_(cpu|cuda_sim) copy", How.RUN_BUILT, ""),
          new Entry("(scripts/|DIR/)?gpu-verify .*", How.RUN_WITHOUT_BUNDLE, ""),
          new Entry("scripts/syncbn train", How.RUN_FULL, ""),
          new Entry(
              "scripts/syncbn run FILE.java",
              How.TEST,
              "docs.LessonsTest#commands_printWhatTheReadmeSays"),
          new Entry("scripts/syncbn convert .*", How.TEST, "cli.ConvertTest#readmesCommands_run"),
          new Entry(
              "scripts/syncbn bench --device gpu .*",
              How.TEST,
              "cli.bench.SimulatedBenchTest#everyPass_isRightAndTimed_besideACopy"),
          new Entry(
              "scripts/syncbn bench .*", How.TEST, "cli.bench.BenchJobTest#peers_areTimedToo"),
          new Entry(
              "SYNCBN_SIM_DEVICES=4 scripts/syncbn train --device gpu",
              How.TEST,
              "cli.SimulatedTrainTest#proof_holdsOnSimulatedGpus"),
          new Entry(
              "(torchrun --no-python --nproc-per-node 2 )?scripts/syncbn train --device gpu --norm"
                  + " sync",
              How.TEST,
              "processes.TrainProcessesTest#twoProcesses_giveTheBitsOfOneWithTwoReplicas_resumedToo"),
          new Entry(
              "mvn test -DforkCount=1 -Dtest=\"\\*FailuresTest\" .*",
              How.TEST,
              "failures.ProcessFailuresTest#failsInTime_andTheOthersGoOn"),
          new Entry("mvn -B -ntp verify", How.CI, ""),
          new Entry("mvn( -B -ntp)?( -Prelease)?( -Pfull)? verify( -Pfull)?", How.CANNOT, BUILD),
          new Entry("mvn -B -ntp install -DskipTests( -Prelease)?", How.CANNOT, BUILD),
          new Entry("mvn -B -ntp test -DskipNativeTests -Dtest=.*", How.CANNOT, BUILD),
          new Entry(
              "mvn -B -ntp com.diffplug.spotless:.*:apply", How.CANNOT, "changes the sources"),
          new Entry("clang-format --style=file -i FILE", How.CANNOT, "changes the sources"),
          new Entry("mvn -Pjmh .*", How.CANNOT, "takes minutes, on a quiet machine"),
          new Entry("ctest --test-dir target/native .*", How.CANNOT, CTEST),
          new Entry(
              "scripts/check-reproducible", How.CANNOT, "two releases, in minutes, with nvcc"),
          new Entry("sudo apt install libnccl2", How.CANNOT, "changes the machine"),
          new Entry("rm -r ~/.javacpp/cache/syncbn4j-\\*", How.CANNOT, "changes the machine"),
          new Entry("export SYNCBN_CUDA_ARCHITECTURES=80", How.CANNOT, "only sets a variable"),
          new Entry("scripts/gpu-bundle .*", How.CANNOT, NEEDS_NVCC),
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
  void testsInTheTable_exist() throws Exception {
    for (Entry entry : TABLE) {
      if (entry.how() == How.TEST) {
        String[] which = entry.which().split("#");
        Class<?> test = Class.forName("io.github.syncbn4j." + which[0]);
        assertThat(test.getDeclaredMethods())
            .as(entry.which())
            .anyMatch(
                method ->
                    method.getName().equals(which[1])
                        && AnnotationSupport.isAnnotated(method, Testable.class));
      }
    }
  }

  @Test
  void commandsOfCi_areInItsScript() throws IOException {
    List<String> script = Files.readAllLines(Path.of(".ci", "run"));
    assertThat(commands(How.CI))
        .isNotEmpty()
        .allMatch(command -> script.contains("exec " + command));
  }

  /** Of builds, which no test can run: profiles, executions, plugins and tests are there. */
  @Test
  void whatMavensCommandsName_isThere() throws IOException {
    String pom = Files.readString(Path.of("pom.xml"));
    List<String> named = new ArrayList<>();
    for (String command : commands()) {
      if (!command.startsWith("mvn ")) {
        continue;
      }
      NAMED_IDS
          .matcher(command)
          .results()
          .map(id -> "<id>" + id.group(1) + "</id>")
          .forEach(named::add);
      Matcher plugin = NAMED_PLUGIN.matcher(command);
      if (plugin.find()) {
        named.add(
            "<artifactId>%s</artifactId>\n        <version>%s</version>"
                .formatted(plugin.group(1), plugin.group(2)));
      }
    }
    assertThat(named).hasSizeGreaterThan(3);
    assertThat(pom).contains(named);
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

  static List<String> runFullSimulated() throws IOException {
    return commands(How.RUN_FULL_SIMULATED);
  }

  @ParameterizedTest
  @MethodSource
  @Tag("full")
  void runFullSimulated(String command) throws Exception {
    requireRuns(command, GPUS, FULL_LIMIT_SECONDS);
  }

  static List<String> runBuilt() throws IOException {
    return commands(How.RUN_BUILT);
  }

  /** With the tests of simulated GPUs, which come after those of the kernels. */
  @ParameterizedTest
  @MethodSource
  @Tag("sim")
  void runBuilt(String command) throws Exception {
    assumeTrue(
        Files.exists(Path.of("target", "native", "test", "test_cpu")),
        "the kernels' tests are not built: -DskipNativeTests");
    requireRuns(command, 0, LIMIT_SECONDS);
  }

  static List<String> runWithoutBundle() throws IOException {
    return commands(How.RUN_WITHOUT_BUNDLE);
  }

  @ParameterizedTest
  @MethodSource
  void runWithoutBundle(String command) throws Exception {
    String line =
        command
            .replaceFirst("^\\S*gpu-verify", "bash scripts/gpu-verify")
            .replaceAll("[\\[\\]]", "");
    Process process = new ProcessBuilder("bash", "-c", line).redirectErrorStream(true).start();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(said).startsWith("gpu-verify: there is no bundle in ");
    assertThat(process.waitFor()).isEqualTo(2);
  }

  private void requireRuns(String command, int gpus, int limitSeconds) throws Exception {
    try (Checkout checkout = new Checkout(folder)) {
      assertThat(checkout.run(command, gpus, limitSeconds)).isNotEmpty();
    }
  }
}
