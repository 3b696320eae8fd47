package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;

/**
 * The documentation's commands that build, in a copy of the checkout, {@code target/commands}. What
 * is left out of a command is its tests: those are this build's own. By name, so that development
 * builds come first: a release compiles all kernels anew.
 */
@Tag("full")
@TestMethodOrder(MethodOrderer.MethodName.class)
class BuildsTest {
  private static final int LIMIT_SECONDS = 1800;
  private static final Path FOLDER = Path.of("target", "commands").toAbsolutePath();
  private static final Path ARTIFACT = Path.of("io", "github", "syncbn4j");

  /** The project with the jars alone is still built and run, and the format is checked. */
  private static final String WITHOUT_TESTS = " -Dmaven.test.skip -DskipNativeTests";

  private static final String OWN_REPOSITORY = " -Dmaven.repo.local=$PWD/target/repository";
  private static final String SHORT = " -Djmh.arguments='-wi 0 -i 1 -r 100ms'";

  private static final List<String> JARS = List.of("", "-linux-x86_64", "-linux-x86_64-cuda13");
  private static final List<String> RELEASED =
      Stream.concat(JARS.stream(), Stream.of("-javadoc", "-sources")).toList();

  private static Checkout checkout;

  @BeforeAll
  static void copy() throws IOException, InterruptedException {
    new ProcessBuilder("rm", "-rf", FOLDER.toString()).inheritIO().start().waitFor();
    checkout = Checkout.copied(FOLDER);
    link(Path.of(System.getProperty("localRepository")), checkout.resolve("target/repository"), 0);
  }

  /** A Maven repository in which all is a link into the user's, but this project. */
  private static void link(Path users, Path repository, int depth) throws IOException {
    Files.createDirectories(repository);
    try (Stream<Path> entries = Files.list(users)) {
      for (Path entry : entries.toList()) {
        Path own = repository.resolve(entry.getFileName());
        if (depth == ARTIFACT.getNameCount()
            || !entry.getFileName().equals(ARTIFACT.getName(depth))) {
          Files.createSymbolicLink(own, entry);
        } else if (depth + 1 < ARTIFACT.getNameCount()) {
          link(entry, own, depth + 1);
        }
      }
    }
  }

  @Test
  void benchmarks_run() throws Exception {
    for (String command : commands("benchmarks_run")) {
      assertThat(checkout.run(command + SHORT, 0, LIMIT_SECONDS))
          .anyMatch(line -> line.startsWith("CallBenchmark.forward "));
    }
  }

  @Test
  void bundle_holds_onSimulatedGpus() throws Exception {
    Checkout.requireOnPath("nvcc");
    for (String command : commands("bundle_holds_onSimulatedGpus")) {
      String line =
          command.replaceAll("[\\[\\]]", "").replaceAll("DIR|/tmp/bundle", "target/bundle");
      boolean verified = line.endsWith("gpu-verify");
      List<String> said =
          checkout.run(
              "rm -rf target/bundle && "
                  + line
                  + (verified ? " --simulated target/native/sim" : ""),
              0,
              LIMIT_SECONDS);
      assertThat(said)
          .anyMatch(each -> each.contains(verified ? " passed, 0 failed, " : " MB  in "));
    }
  }

  @Test
  void development_makesThreeJars() throws Exception {
    for (String command : commands("development_makesThreeJars")) {
      requireJars(command, JARS);
    }
  }

  @Test
  void javasFormat_isPutRight() throws Exception {
    requireFormats("javasFormat_isPutRight", "src/main/java/io/github/syncbn4j/DType.java");
  }

  @Test
  void namedTests_run() throws Exception {
    for (String command : commands("namedTests_run")) {
      assertThat(checkout.run(command, 0, LIMIT_SECONDS))
          .anyMatch(line -> line.contains("Tests run: ") && line.endsWith(".CpuLayerTest"))
          .anyMatch(line -> line.contains("Tests run: ") && line.endsWith(".SimLayerTest"));
    }
  }

  @Test
  void nativeFormat_isPutRight() throws Exception {
    Checkout.requireOnPath("clang-format");
    requireFormats("nativeFormat_isPutRight", "native/cpu/api.cpp");
  }

  @Test
  void release_makesFiveJars() throws Exception {
    Checkout.requireOnPath("nvcc");
    for (String command : commands("release_makesFiveJars")) {
      assertThat(requireJars(command, RELEASED)).anyMatch(line -> line.endsWith("80-real;90"));
    }
  }

  @Test
  void twoReleases_areTheSameBits() throws Exception {
    Checkout.requireOnPath("nvcc");
    for (String command : commands("twoReleases_areTheSameBits")) {
      assertThat(checkout.run(command + " -Dsyncbn.cuda.architectures=90", 0, LIMIT_SECONDS))
          .contains("check-reproducible: the same bits in both folders");
    }
  }

  private static List<String> commands(String method) throws IOException {
    return CommandTable.commands(BuildsTest.class, method);
  }

  private static List<String> requireJars(String command, List<String> classifiers)
      throws Exception {
    boolean installs = command.contains(" install ");
    checkout.run("rm -rf target/*.jar target/repository/" + ARTIFACT, 0, LIMIT_SECONDS);
    List<String> said =
        checkout.run(command + (installs ? OWN_REPOSITORY : WITHOUT_TESTS), 0, LIMIT_SECONDS);
    Path made = checkout.resolve(installs ? "target/repository/" + ARTIFACT : "target");
    try (Stream<Path> files = Files.walk(made, installs ? 3 : 1)) {
      assertThat(
              files
                  .map(file -> file.getFileName().toString())
                  .filter(name -> name.endsWith(".jar"))
                  .map(name -> name.replaceFirst("^syncbn4j-[\\d.]+(-SNAPSHOT)?(.*)\\.jar$", "$2")))
          .as(command)
          .containsExactlyInAnyOrderElementsOf(classifiers);
    }
    return said;
  }

  /** A file that is not in the format is again as it was. */
  private static void requireFormats(String method, String file) throws Exception {
    for (String command : commands(method)) {
      checkout.run("sed -i 's/^  /       /' " + file + " && ! git diff --quiet", 0, LIMIT_SECONDS);
      checkout.run(command.replace("FILE", file), 0, LIMIT_SECONDS);
      assertThat(checkout.run("git status --porcelain", 0, LIMIT_SECONDS)).isEmpty();
    }
  }
}
