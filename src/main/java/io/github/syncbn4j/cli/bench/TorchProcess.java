package io.github.syncbn4j.cli.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.ProcessBuilder.Redirect;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * PyTorch on GPUs, in a process of its own for each replica: {@code scripts/peers/torch_syncbn.py},
 * run by whatever Python has it.
 */
final class TorchProcess {
  /** Where {@code scripts/syncbn} says that the scripts are. */
  private static final String SCRIPTS = "syncbn.peers";

  private static final long MOST_MINUTES = 10;
  private static final ObjectMapper JSON = new ObjectMapper();

  private final int replicas;
  private final String python;
  private final Path script;

  TorchProcess(int replicas) {
    this(
        replicas,
        System.getenv().getOrDefault("SYNCBN_PYTHON", "python3"),
        Path.of(System.getProperty(SCRIPTS, "scripts/peers"), "torch_syncbn.py"));
  }

  /** For tests. */
  TorchProcess(int replicas, String python, Path script) {
    this.replicas = replicas;
    this.python = python;
    this.script = script;
  }

  /** Why there is none that sees a GPU for each replica, in one line; null if there is. */
  String absence() {
    if (!Files.exists(script)) {
      return "there is no " + script;
    }
    List<String> lines = new ArrayList<>();
    String program = "import torch; torch.zeros(1).cuda(%d)".formatted(replicas - 1);
    int status = run(List.of(python, "-c", program), "", lines);
    return status == 0
        ? null
        : "%s has no torch that sees %d GPU(s): %s"
            .formatted(python, replicas, lines.isEmpty() ? "" : lines.get(lines.size() - 1));
  }

  /**
   * What was measured and found right.
   *
   * @throws IllegalStateException if it ended in an error or was wrong, with its last lines
   */
  List<Result> results(List<Problem> problems) {
    List<String> lines = new ArrayList<>();
    String cases = problems.stream().map(TorchProcess::json).collect(Collectors.joining("\n"));
    List<String> command =
        List.of(python, script.toString(), "--cases", "--replicas", Integer.toString(replicas));
    int status = run(command, cases, lines);
    List<Result> results = new ArrayList<>();
    List<String> others = new ArrayList<>();
    for (String line : lines) {
      if (line.startsWith("{")) {
        add(results, line, problems);
      } else {
        others.add(line);
      }
    }
    if (status != 0) {
      throw new IllegalStateException(
          "%s ended with status %d: %s".formatted(script, status, String.join("; ", others)));
    }
    return results;
  }

  /** As the script takes it. */
  private static String json(Problem problem) {
    ObjectNode node = JSON.createObjectNode();
    long[] shape = problem.logicalShape();
    for (int i = 0; i < 4; i++) {
      node.withArray("shape").add(i < shape.length ? shape[i] : 1);
    }
    node.put("suite", problem.suite());
    node.put("layer", problem.layer());
    node.put("layout", problem.layout());
    node.put("dtype", problem.dtypeText());
    node.put("cold", problem.cold());
    node.put("case", problem.toString());
    return node.toString();
  }

  private void add(List<Result> results, String line, List<Problem> problems) {
    JsonNode node;
    try {
      node = JSON.readTree(line);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    String name = node.path("case").asText();
    String pass = node.path("pass").asText().toUpperCase(Locale.ROOT);
    if (!node.path("measured").asText().equals("graph") || pass.equals("COPY")) {
      return; // what the layer is compared with is the device's time alone
    }
    Problem problem =
        problems.stream().filter(p -> p.toString().equals(name)).findFirst().orElseThrow();
    Times times =
        new Times(
            node.path("median_us").doubleValue(),
            node.path("p10_us").doubleValue(),
            node.path("p90_us").doubleValue(),
            new double[0],
            0);
    results.add(
        new Result(
            problem,
            Pass.valueOf(pass),
            BenchJob.Device.gpu,
            replicas,
            replicas,
            node.path("impl").asText(),
            times,
            node.path("copies").doubleValue(),
            node.path("max_error").doubleValue()));
  }

  /** Its exit status; its output and errors go to {@code lines}. */
  private static int run(List<String> command, String input, List<String> lines) {
    try {
      Path output = Files.createTempFile("syncbn", ".lines");
      Path given = Files.createTempFile("syncbn", ".cases");
      try {
        Files.writeString(given, input + "\n");
        Process process =
            new ProcessBuilder(command)
                .redirectInput(given.toFile())
                .redirectErrorStream(true)
                .redirectOutput(Redirect.to(output.toFile()))
                .start();
        boolean ended = process.waitFor(MOST_MINUTES, TimeUnit.MINUTES);
        if (!ended) {
          process.descendants().forEach(ProcessHandle::destroyForcibly); // one a replica
          process.destroyForcibly().waitFor();
        }
        lines.addAll(Files.readAllLines(output, StandardCharsets.UTF_8));
        return process.exitValue();
      } finally {
        Files.delete(output);
        Files.delete(given);
      }
    } catch (IOException e) {
      lines.add(e.getMessage());
      return 1;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    }
  }
}
