package io.github.syncbn4j.docs;

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

/** How each command in README.md, CONTRIBUTING.md and docs is run. */
final class CommandTable {
  enum How {
    /** By CommandsTest, every time. */
    RUN,
    /** By CommandsTest, every time, on simulated GPUs. */
    RUN_SIMULATED,
    /** By CommandsTest, every time, once the build has made the kernels' tests. */
    RUN_BUILT,
    /**
     * By CommandsTest, every time, to where it needs a bundle: its options and steps are accepted.
     */
    RUN_WITHOUT_BUNDLE,
    /** By CommandsTest, with the tests that take long. */
    RUN_FULL,
    /** The same, once the build has made the kernels' tests. */
    RUN_FULL_BUILT,
    /** By CommandsTest, with the tests that take long, on simulated GPUs. */
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
  record Entry(String command, How how, String which) {
    boolean matches(String line) {
      return Pattern.matches(command, line);
    }
  }

  static final List<Entry> TABLE =
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
              "scripts/syncbn train --device gpu --norm sync",
              How.TEST,
              "processes.TrainProcessesTest#twoProcesses_giveTheBitsOfOneWithTwoReplicas_resumedToo"),
          new Entry(
              "mvn test -DforkCount=1 -Dtest=\"\\*FailuresTest\" .*",
              How.TEST,
              "failures.ProcessFailuresTest#failsInTime_andTheOthersGoOn"),
          new Entry("mvn -B -ntp verify", How.CI, ""),
          new Entry(
              "mvn -B -ntp (install -DskipTests|verify -Pfull)",
              How.TEST,
              "docs.BuildsTest#development_makesThreeJars"),
          new Entry(
              "mvn -B -ntp (install -DskipTests -Prelease|-Prelease (-Pfull )?verify)",
              How.TEST,
              "docs.BuildsTest#release_makesFiveJars"),
          new Entry(
              "mvn -B -ntp test -DskipNativeTests -Dtest=.*",
              How.TEST,
              "docs.BuildsTest#namedTests_run"),
          new Entry("mvn -Pjmh .*", How.TEST, "docs.BuildsTest#benchmarks_run"),
          new Entry(
              "mvn -B -ntp com.diffplug.spotless:.*:apply",
              How.TEST,
              "docs.BuildsTest#javasFormat_isPutRight"),
          new Entry(
              "clang-format --style=file -i FILE",
              How.TEST,
              "docs.BuildsTest#nativeFormat_isPutRight"),
          new Entry("ctest --test-dir target/native .*", How.RUN_FULL_BUILT, ""),
          new Entry(
              "scripts/check-reproducible", How.TEST, "docs.BuildsTest#twoReleases_areTheSameBits"),
          new Entry(
              "scripts/gpu-bundle .*", How.TEST, "docs.BuildsTest#bundle_holds_onSimulatedGpus"),
          new Entry(
              "rm -r ~/.javacpp/cache/syncbn4j-\\*",
              How.TEST,
              "docs.CommandsTest#cacheOfThisLibrary_isRemoved_andNoOther"),
          new Entry(
              "export SYNCBN_CUDA_ARCHITECTURES=80",
              How.TEST,
              "docs.CommandsTest#architecture_isWhatTheScriptBuildsFor"),
          new Entry(
              "java -jar",
              How.TEST,
              "cli.TrainWithoutLibrariesTest#jarAlone_saysWhatHasTheLibraries"),
          new Entry(
              "(mpirun -np 8 |torchrun --no-python --nproc-per-node 8 )?java -cp app.jar:... Main",
              How.TEST,
              "docs.LaunchersTest#everyRank_comes"),
          new Entry(
              "torchrun --no-python --nproc-per-node 2 scripts/syncbn train .*",
              How.TEST,
              "docs.LaunchersTest#training_isOneJob"),
          new Entry(
              "torchrun --no-python --nproc-per-node 2",
              How.TEST,
              "docs.LaunchersTest#lesson_printsTheSame_underTorchrun"),
          new Entry("sudo apt install libnccl2", How.CANNOT, "changes the machine"),
          new Entry("torchrun .* --nnodes 4 .*|mpirun .*node1:8.*", How.CANNOT, "several machines"),
          new Entry("srun .*", How.CANNOT, "a cluster; job.JobEnvironmentTest has its variables"));

  private CommandTable() {}

  static List<Path> pages() throws IOException {
    List<Path> pages = new ArrayList<>(List.of(Path.of("README.md"), Path.of("CONTRIBUTING.md")));
    try (Stream<Path> files = Files.walk(Path.of("docs"))) {
      files.filter(file -> file.toString().endsWith(".md")).sorted().forEach(pages::add);
    }
    return pages;
  }

  /** Those that LessonsTest does not run. */
  static Set<String> commands() throws IOException {
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

  static List<String> commands(How how) throws IOException {
    return commands().stream()
        .filter(command -> entry(command).filter(entry -> entry.how() == how).isPresent())
        .toList();
  }

  /** The first one that matches. */
  static Optional<Entry> entry(String command) {
    return TABLE.stream().filter(entry -> entry.matches(command)).findFirst();
  }

  /** Those that a test of this package runs. */
  static List<String> commands(Class<?> test, String method) throws IOException {
    String which = "docs." + test.getSimpleName() + "#" + method;
    return commands().stream()
        .filter(command -> entry(command).filter(e -> e.which().equals(which)).isPresent())
        .toList();
  }
}
