package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.platform.commons.annotation.Testable;
import org.junit.platform.commons.support.AnnotationSupport;

/**
 * Every command in README.md, CONTRIBUTING.md and docs is run here, by {@link LessonsTest}, or by
 * the test that {@link CommandTable} names; or that says why it cannot be run.
 */
class CommandsTest {
  private static final int LIMIT_SECONDS = 60;
  private static final int FULL_LIMIT_SECONDS = 1200;
  private static final int GPUS = 4;

  private static final Pattern NAMED_IDS = Pattern.compile("(?:-P|exec@)(\\w+)");
  private static final Pattern NAMED_PLUGIN = Pattern.compile("([\\w-]+):([\\d.]+):\\w+");

  @TempDir private Path folder;

  @Test
  void everyCommand_isInTheTable_whichHasNoOther() throws IOException {
    Set<String> commands = CommandTable.commands();
    assertThat(commands)
        .as("run by no test: add them to this table, with the way in which each is run")
        .filteredOn(command -> CommandTable.entry(command).isEmpty())
        .isEmpty();
    assertThat(CommandTable.TABLE)
        .as("no such command is in the documentation any more")
        .filteredOn(
            entry ->
                commands.stream()
                    .noneMatch(command -> CommandTable.entry(command).equals(Optional.of(entry))))
        .isEmpty();
  }

  @Test
  void testsInTheTable_exist() throws Exception {
    for (CommandTable.Entry entry : CommandTable.TABLE) {
      if (entry.how() == CommandTable.How.TEST) {
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
    assertThat(CommandTable.commands(CommandTable.How.CI))
        .isNotEmpty()
        .allMatch(command -> script.contains("exec " + command));
  }

  /** Of builds, which only -Pfull runs: profiles, executions, plugins and tests are there. */
  @Test
  void whatMavensCommandsName_isThere() throws IOException {
    String pom = Files.readString(Path.of("pom.xml"));
    List<String> named = new ArrayList<>();
    for (String command : CommandTable.commands()) {
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
    return CommandTable.commands(CommandTable.How.RUN);
  }

  @ParameterizedTest
  @MethodSource
  void run(String command) throws Exception {
    requireRuns(command, 0, LIMIT_SECONDS);
  }

  static List<String> runSimulated() throws IOException {
    return CommandTable.commands(CommandTable.How.RUN_SIMULATED);
  }

  @ParameterizedTest
  @MethodSource
  void runSimulated(String command) throws Exception {
    requireRuns(command, GPUS, LIMIT_SECONDS);
  }

  static List<String> runFull() throws IOException {
    return CommandTable.commands(CommandTable.How.RUN_FULL);
  }

  @ParameterizedTest
  @MethodSource
  @Tag("full")
  void runFull(String command) throws Exception {
    requireRuns(command, 0, FULL_LIMIT_SECONDS);
  }

  static List<String> runFullSimulated() throws IOException {
    return CommandTable.commands(CommandTable.How.RUN_FULL_SIMULATED);
  }

  @ParameterizedTest
  @MethodSource
  @Tag("full")
  void runFullSimulated(String command) throws Exception {
    requireRuns(command, GPUS, FULL_LIMIT_SECONDS);
  }

  static List<String> runBuilt() throws IOException {
    return CommandTable.commands(CommandTable.How.RUN_BUILT);
  }

  /** With the tests of simulated GPUs, which come after those of the kernels. */
  @ParameterizedTest
  @MethodSource
  @Tag("sim")
  void runBuilt(String command) throws Exception {
    requireKernelTests();
    requireRuns(command, 0, LIMIT_SECONDS);
  }

  static List<String> runFullBuilt() throws IOException {
    return CommandTable.commands(CommandTable.How.RUN_FULL_BUILT);
  }

  /** The kernels' tests, of which the build has just run all. */
  @ParameterizedTest
  @MethodSource
  @Tag("sim")
  @Tag("full")
  void runFullBuilt(String command) throws Exception {
    requireKernelTests();
    requireRuns(command, 0, FULL_LIMIT_SECONDS);
  }

  private static void requireKernelTests() {
    assumeTrue(
        Files.exists(Path.of("target", "native", "test", "test_cpu")),
        "the kernels' tests are not built: -DskipNativeTests");
  }

  @Test
  void cacheOfThisLibrary_isRemoved_andNoOther() throws Exception {
    try (Checkout checkout = Checkout.built(folder)) {
      Path cache = Files.createDirectories(folder.resolve("home/.javacpp/cache"));
      Files.createDirectories(cache.resolve("syncbn4j-0.1.0-SNAPSHOT-linux-x86_64.jar/io"));
      Path other = Files.createDirectories(cache.resolve("javacpp-1.5.13-linux-x86_64.jar"));
      for (String command :
          CommandTable.commands(CommandsTest.class, "cacheOfThisLibrary_isRemoved_andNoOther")) {
        checkout.run("export HOME=$PWD/home && " + command, 0, LIMIT_SECONDS);
      }
      assertThat(cache)
          .isDirectoryContaining(other::equals)
          .isDirectoryNotContaining("glob:**sync*");
    }
  }

  @Test
  void architecture_isWhatTheScriptBuildsFor() throws Exception {
    for (String command :
        CommandTable.commands(CommandsTest.class, "architecture_isWhatTheScriptBuildsFor")) {
      try (Checkout checkout = Checkout.built(folder)) {
        List<String> asked =
            checkout.run(
                """
                rm target/syncbn.classpath # so that it builds
                mkdir bin && printf '#!/bin/sh\\necho "$@" >asked; exit 1' >bin/mvn && chmod +x bin/mvn
                %s
                PATH=$PWD/bin:$PATH scripts/syncbn info || cat asked
                """
                    .formatted(command),
                0,
                LIMIT_SECONDS);
        assertThat(asked)
            .singleElement()
            .asString()
            .contains(" -Dsyncbn.cuda.architectures=" + command.replaceFirst(".*=", "") + " ");
      }
    }
  }

  static List<String> runWithoutBundle() throws IOException {
    return CommandTable.commands(CommandTable.How.RUN_WITHOUT_BUNDLE);
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
    try (Checkout checkout = Checkout.built(folder)) {
      assertThat(checkout.run(command, gpus, limitSeconds)).isNotEmpty();
    }
  }
}
