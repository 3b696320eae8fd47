package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** A folder that is a checkout of this project: in it commands run as in the documentation. */
final class Checkout implements AutoCloseable {
  private static final Path PROJECT = Path.of("").toAbsolutePath();
  private static final int GIT_SECONDS = 60;
  private static final List<String> LINKED =
      List.of("cmake", "docs", "native", "pom.xml", "src", "target/classes", "target/native");

  private final Path folder;
  private final List<String> links;

  private Checkout(Path folder, List<String> links) throws IOException {
    this.folder = folder;
    this.links = links;
    Files.createDirectories(folder.resolve("target"));
    for (String name : links) {
      Files.createSymbolicLink(folder.resolve(name), PROJECT.resolve(name));
    }
  }

  /** One that is built as this build is: scripts/syncbn has nothing to build in it. */
  static Checkout built(Path folder) throws IOException {
    Checkout checkout = new Checkout(folder, LINKED);
    // A copy, since the script takes the folder that it lies in for the checkout.
    Path scripts = Files.createDirectories(folder.resolve("scripts"));
    Files.copy(PROJECT.resolve("scripts/syncbn"), scripts.resolve("syncbn"));
    scripts.resolve("syncbn").toFile().setExecutable(true);
    // Whatever it was built from is older.
    Path classpath = Files.writeString(folder.resolve("target/syncbn.classpath"), dependencies());
    Files.setLastModifiedTime(classpath, FileTime.from(Instant.now().plus(Duration.ofDays(1))));
    return checkout;
  }

  /** A repository of its own, with the files as they are now as its last commit; not built. */
  static Checkout copied(Path folder) throws IOException, InterruptedException {
    Checkout checkout = new Checkout(folder, List.of());
    String git = "git --git-dir=copy/.git --work-tree=" + PROJECT;
    checkout.run(
        "git clone -q --no-checkout file://%s copy && %s add --all".formatted(PROJECT, git)
            + " && %s -c user.name=test -c user.email=test commit -q --allow-empty -m now"
                .formatted(git)
            + " && mv copy/.git . && rmdir copy && git reset -q --hard",
        0,
        GIT_SECONDS);
    return checkout;
  }

  Path resolve(String name) {
    return folder.resolve(name);
  }

  /** The class path of the tests without this project's own classes. */
  private static String dependencies() {
    return Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
        .filter(entry -> entry.endsWith(".jar"))
        .collect(Collectors.joining(File.pathSeparator));
  }

  /**
   * Runs a shell's line, which has to succeed.
   *
   * @param gpus simulated ones; 0 for what the line itself says
   * @return the lines that it printed
   */
  List<String> run(String command, int gpus, int limitSeconds)
      throws IOException, InterruptedException {
    Path out = Files.createTempFile(folder.resolve("target"), "out", ".log");
    Path err = Files.createTempFile(folder.resolve("target"), "err", ".log");
    ProcessBuilder builder =
        new ProcessBuilder("bash", "-c", command)
            .directory(folder.toFile())
            .redirectOutput(out.toFile())
            .redirectError(err.toFile());
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    builder.environment().put("SYNCBN_JAVA_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
    builder.environment().remove("LD_PRELOAD"); // of a simulated node that runs this test
    builder.environment().remove("SYNCBN_SIM_DEVICES");
    if (gpus > 0) {
      builder.environment().put("SYNCBN_SIM_DEVICES", "" + gpus);
    }
    try (ServerSocket agent = new ServerSocket(0)) { // as torchrun's, for commands of several ranks
      builder.environment().put("MASTER_PORT", "" + agent.getLocalPort());
      Process process = builder.start();
      if (!process.waitFor(limitSeconds, TimeUnit.SECONDS)) {
        process.descendants().forEach(ProcessHandle::destroyForcibly);
        process.destroyForcibly();
        throw new AssertionError(command + " did not end in " + limitSeconds + " s");
      }
      assertThat(process.exitValue())
          .as("%s\n%s%s", command, Files.readString(out), Files.readString(err))
          .isZero();
    }
    return Files.readAllLines(out);
  }

  /** Leaves out the test where this machine has no such program. */
  static void requireOnPath(String program) {
    boolean found =
        Arrays.stream(System.getenv("PATH").split(File.pathSeparator))
            .anyMatch(folder -> Files.isExecutable(Path.of(folder, program)));
    assumeTrue(found, "no " + program + " on the PATH");
  }

  /** Removes the links, at which JUnit would wonder. */
  @Override
  public void close() throws IOException {
    for (String name : links) {
      Files.delete(folder.resolve(name));
    }
  }
}
