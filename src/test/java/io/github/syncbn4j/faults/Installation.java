package io.github.syncbn4j.faults;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.Deflater;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;

/**
 * This library as its users have it, in jars, with parts that are missing or others. Native code is
 * loaded once a process, so each look at it is a process of its own.
 */
public final class Installation {
  private static final Path CLASSES = Path.of("target", "classes");
  private static final Path NATIVES = Path.of("io", "github", "syncbn4j", "device", "linux-x86_64");
  private static final String LIMIT = "120";

  private final Path folder;

  /** What is in the native jars, by path. */
  private final Map<String, byte[]> natives = new HashMap<>();

  private final List<String> options = new ArrayList<>();
  private final Map<String, String> environment = new HashMap<>();
  private final List<String> before = new ArrayList<>();
  private Predicate<String> jars = jar -> true;

  /**
   * Without any native code.
   *
   * @param folder empty
   */
  public Installation(Path folder) {
    this.folder = folder;
    option("-Dorg.bytedeco.javacpp.cachedir=" + cache());
  }

  /** JavaCPP's, of this installation alone; there once something runs. */
  public Path cache() {
    return folder.resolve("cache");
  }

  /** As this build has made it. */
  static byte[] built(String library) throws IOException {
    return Files.readAllBytes(CLASSES.resolve(NATIVES).resolve(library));
  }

  public Installation with(String... libraries) throws IOException {
    for (String library : libraries) {
      with(library, built(library));
    }
    return this;
  }

  Installation with(String library, byte[] content) {
    natives.put(NATIVES.resolve(library).toString(), content);
    return this;
  }

  /**
   * @param name of others' jars, a regular expression
   */
  Installation without(String name) {
    jars = jar -> !jar.matches(name);
    return this;
  }

  /** Of the JVM. A later one of a name counts. */
  public Installation option(String option) {
    options.add(option);
    return this;
  }

  public Installation variable(String name, String value) {
    environment.put(name, value);
    return this;
  }

  /**
   * Runs where the file systems are others, for the process alone. Where a user cannot have that,
   * the test is aborted.
   *
   * @param commands of a shell; in them $1 is JavaCPP's cache, a folder
   */
  Installation mounted(String commands) throws IOException, InterruptedException {
    Files.createDirectories(cache());
    List<String> namespace = List.of("unshare", "--map-root-user", "--mount", "sh", "-e", "-c");
    List<String> trial = new ArrayList<>(namespace);
    trial.addAll(List.of(commands, "sh", cache().toString()));
    Process tried = new ProcessBuilder(trial).redirectErrorStream(true).start();
    String said = new String(tried.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assumeTrue(tried.waitFor() == 0, "this machine lets nobody mount for a process: " + said);
    before.addAll(namespace);
    before.addAll(List.of(commands + "\nshift; exec \"$@\"", "sh", cache().toString()));
    return this;
  }

  /** A program's exit status and what it printed. */
  public record Run(int status, List<String> lines, List<String> errors) {}

  public Run run(Class<?> program, String... arguments) throws IOException, InterruptedException {
    Path jar = folder.resolve("natives.jar");
    try (ZipOutputStream out = new ZipOutputStream(Files.newOutputStream(jar))) {
      out.setLevel(Deflater.NO_COMPRESSION);
      for (Map.Entry<String, byte[]> file : natives.entrySet()) {
        out.putNextEntry(new ZipEntry(file.getKey()));
        out.write(file.getValue());
      }
    }
    List<String> command = new ArrayList<>(before);
    command.addAll(List.of("timeout", LIMIT));
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"));
    command.addAll(options);
    command.addAll(List.of("-cp", classPath(mainJar(), jar), program.getName()));
    command.addAll(List.of(arguments));
    ProcessBuilder builder = new ProcessBuilder(command);
    builder.environment().putAll(environment);
    Path errors = folder.resolve("errors");
    Process process = builder.redirectError(errors.toFile()).start();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).as("the process ends").isTrue();
    return new Run(process.exitValue(), said.lines().toList(), Files.readAllLines(errors));
  }

  /** What {@link OpenGroup} says of a device. */
  String open(String device) throws IOException, InterruptedException {
    Run run = run(OpenGroup.class, device);
    assertThat(run.status()).as("%s", run.lines()).isZero();
    assertThat(run.lines()).hasSize(1);
    return run.lines().get(0);
  }

  /** Everything but native code. */
  private Path mainJar() throws IOException {
    Path jar = folder.resolve("main.jar");
    try (ZipOutputStream out = new ZipOutputStream(Files.newOutputStream(jar));
        Stream<Path> files = Files.walk(CLASSES)) {
      out.setLevel(Deflater.NO_COMPRESSION);
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        String name = CLASSES.relativize(file).toString();
        if (!name.contains(".so")) {
          out.putNextEntry(new ZipEntry(name));
          Files.copy(file, out);
        }
      }
    }
    return jar;
  }

  private String classPath(Path... own) {
    Stream<String> others =
        Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
            .filter(entry -> !Path.of(entry).endsWith(CLASSES))
            .filter(entry -> jars.test(Path.of(entry).getFileName().toString()));
    return Stream.concat(Stream.of(own).map(Path::toString), others)
        .collect(Collectors.joining(File.pathSeparator));
  }
}
