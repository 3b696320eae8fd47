package io.github.syncbn4j.failures;

import io.github.syncbn4j.processes.RankProcess;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A {@link Worker} in a Java virtual machine of its own. */
final class WorkerProcess {
  private static final long LIMIT_SECONDS = 60;
  private static final String END = "(it has ended)";

  private final Process process;
  private final PrintStream in;
  private final BlockingQueue<String> said = new LinkedBlockingQueue<>();

  /**
   * @param errors where its error stream goes
   */
  WorkerProcess(File errors) throws IOException {
    process =
        new ProcessBuilder(RankProcess.command(Worker.class, List.of()))
            .redirectError(ProcessBuilder.Redirect.appendTo(errors))
            .start();
    in = new PrintStream(process.getOutputStream(), true);
    Thread reader = new Thread(this::read, "worker-output");
    reader.setDaemon(true);
    reader.start();
  }

  private void read() {
    try (BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream()))) {
      out.lines().forEach(said::add);
    } catch (IOException | RuntimeException e) {
      said.add(e.toString());
    }
    said.add(END);
  }

  Process process() {
    return process;
  }

  void tell(Object... words) {
    StringBuilder line = new StringBuilder();
    for (Object word : words) {
      line.append(line.isEmpty() ? "" : "\t").append(word);
    }
    in.println(line);
  }

  /** The words of the next line that it says, which has to begin so. */
  String[] hear(String beginning) throws InterruptedException {
    String line = said.poll(LIMIT_SECONDS, TimeUnit.SECONDS);
    if (line == null || !line.startsWith(beginning)) {
      throw new AssertionError("'" + line + "' instead of '" + beginning + "'");
    }
    return line.split("\t", -1);
  }

  boolean isAlive() {
    return process.isAlive();
  }
}
