package io.github.syncbn4j.processes;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * A rank of a job in a Java virtual machine of its own, which runs a program with this one's
 * options and class path, and with it the same simulated GPUs.
 */
public final class RankProcess {
  private static final long LIMIT_SECONDS = 60;

  private final Process process;
  private final Path output;

  /**
   * @param environment added to this process's
   */
  RankProcess(Path folder, Map<String, String> environment, Class<?> main, List<String> arguments) {
    List<String> command = command(main, arguments);
    try {
      output = Files.createTempFile(folder, "rank", ".log");
      ProcessBuilder builder =
          new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(output.toFile());
      builder.environment().putAll(environment);
      process = builder.start();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A virtual machine like this one that runs another program. */
  public static List<String> command(Class<?> main, List<String> arguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    ManagementFactory.getRuntimeMXBean().getInputArguments().stream()
        .filter(argument -> argument.startsWith("-D"))
        .forEach(command::add);
    command.addAll(
        List.of(
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-cp",
            System.getProperty("java.class.path"),
            main.getName()));
    command.addAll(arguments);
    return command;
  }

  /** What torchrun would set. */
  static Map<String, String> torchrun(int rank, int worldSize, int masterPort) {
    return Map.of(
        "RANK", "" + rank,
        "WORLD_SIZE", "" + worldSize,
        "LOCAL_RANK", "" + rank,
        "LOCAL_WORLD_SIZE", "" + worldSize,
        "MASTER_ADDR", "127.0.0.1",
        "MASTER_PORT", "" + masterPort);
  }

  Process process() {
    return process;
  }

  /** Waits for its end, and returns what it printed. */
  List<String> lines() {
    try {
      if (!process.waitFor(LIMIT_SECONDS, TimeUnit.SECONDS)) {
        process.destroyForcibly();
        throw new AssertionError("a rank did not end:\n" + Files.readString(output));
      }
      return Files.readAllLines(output);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError(e);
    }
  }

  /** Waits until it has printed a line that begins so. */
  void await(String beginning) throws IOException, InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_SECONDS);
    while (Files.readAllLines(output).stream().noneMatch(line -> line.startsWith(beginning))) {
      if (System.nanoTime() > deadline || !process.isAlive()) {
        throw new AssertionError("no '" + beginning + "':\n" + Files.readString(output));
      }
      Thread.sleep(20);
    }
  }
}
