package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.cli.output.Progress;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;

/** {@code syncbn bench} from its options to its report. */
public class BenchJob {
  /**
   * How often all problems are gone through. A machine that others use has memory of two speeds,
   * which alternate within seconds to minutes, and not all kernels gain alike.
   */
  static final int SWEEPS = 3;

  /** With those in which only what was disturbed too often is timed again. */
  private static final int MOST_SWEEPS = 6;

  /** Of the simulated node, which has none: so few sets of tensors that they take no time. */
  private static final long SIMULATED_CACHE = 256;

  /** Where the layer is timed. */
  public enum Device {
    cpu,
    gpu,
    /**
     * GPUs of the simulated node: this shows that the command works, and no time that means
     * something.
     */
    simulated
  }

  /**
   * @param threads of the CPU; GPUs have one each that enqueues
   * @param peers whether to time other implementations too
   * @param json file to write; null for none
   * @param plots folder to write; null for none
   */
  public record Options(
      Suite suite,
      Device device,
      int replicas,
      int threads,
      boolean peers,
      Path json,
      Path plots) {}

  private record Case(Problem problem, Pass pass) {}

  private final Options options;
  private final List<Problem> problems;
  private final Supplier<Place> places;
  private final PrintWriter out;
  private final Map<Case, Map<String, Findings>> findings = new HashMap<>();
  private final List<Result> results = new ArrayList<>();
  private int threads;
  private int discarded;
  private int disturbed;
  private boolean right = true;

  /**
   * @throws IllegalArgumentException for more replicas than images
   */
  public BenchJob(Options options, PrintWriter out) {
    this(options, problems(options), () -> place(options), out);
  }

  /** For tests: of other problems, on a machine that may look otherwise. */
  BenchJob(Options options, List<Problem> problems, Supplier<Place> places, PrintWriter out) {
    this.options = options;
    this.problems = problems;
    this.places = places;
    this.out = out;
    for (Problem problem : problems) {
      if (problem.images() < options.replicas()) {
        throw new IllegalArgumentException(
            "--replicas is %d, but this suite has batches of %d image(s)"
                .formatted(options.replicas(), problem.images()));
      }
    }
  }

  private static List<Problem> problems(Options options) {
    List<Problem> problems = options.suite().problems();
    return options.device() == Device.simulated
        ? problems.stream().map(problem -> problem.shrunk(options.replicas())).distinct().toList()
        : problems;
  }

  private static Place place(Options options) {
    return switch (options.device()) {
      case cpu -> new CpuPlace(options.replicas(), options.threads());
      case gpu -> new GpuPlace(options.replicas());
      case simulated -> new GpuPlace(options.replicas(), 1, SIMULATED_CACHE);
    };
  }

  /**
   * Lets this process keep the memory that it frees, so that a peer that allocates its outputs does
   * not pay for fresh pages each time. On the CPU, and before libtorch is loaded.
   *
   * @throws UnsatisfiedLinkError if what {@link NativeCopy} needs was not built
   */
  public static void prepareProcess() {
    NativeCopy.keepFreedMemory();
  }

  /**
   * Measures, prints and writes.
   *
   * @return whether every result was right, and there are any
   * @throws IOException if what the options name cannot be written; before anything is measured
   */
  public boolean run() throws IOException {
    requireWritable();
    int passes = SWEEPS * problems.stream().mapToInt(problem -> problem.passes().size()).sum();
    try (Place place = places.get();
        Progress progress = Progress.of("bench", "passes", passes)) {
      introduce(place);
      for (int sweep = 1; sweep <= MOST_SWEEPS; sweep++) {
        for (Problem problem : problems) {
          if (sweep <= SWEEPS || lacksSamples(problem)) {
            progress.phase("%d/%d %s".formatted(Math.min(sweep, SWEEPS), SWEEPS, problem));
            run(problem, place, sweep == 1, progress);
          }
        }
      }
    }
    problems.forEach(this::report);
    if (options.peers() && options.device() != Device.cpu) {
      runTorch();
    }
    conclude();
    return right && !results.isEmpty();
  }

  /** As where the JVM was still compiling when it was timed. */
  private boolean lacksSamples(Problem problem) {
    return problem.passes().stream()
        .flatMap(pass -> findings.get(new Case(problem, pass)).values().stream())
        .anyMatch(found -> !found.ways().isEmpty() && found.fastest() == null);
  }

  /**
   * Now, not when everything has been measured; results of before stay until there are new ones.
   */
  private void requireWritable() throws IOException {
    if (options.json() != null) {
      Files.writeString(options.json(), "", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }
    if (options.plots() != null) {
      Files.createDirectories(options.plots());
    }
  }

  private void introduce(Place place) {
    threads = place.threads();
    out.printf(
        "suite %s: %s, %d replica(s), %d thread(s); cold: sets of tensors beyond twice the cache of %d MB%n",
        options.suite(),
        options.device(),
        options.replicas(),
        place.threads(),
        place.cacheBytes() >> 20);
    if (options.device() == Device.simulated) {
      out.println("Simulated GPUs: small tensors, and times that mean nothing.");
    }
    if (options.peers()) {
      place.peers().forEach(peer -> introduce(peer.text(), peer.absence()));
    }
    out.flush();
  }

  private void introduce(String peer, String absence) {
    out.printf("peer %s: %s%n", peer, absence == null ? "found" : absence);
  }

  /** After the place is closed, whose memory it may need. */
  private void runTorch() {
    TorchProcess torch = new TorchProcess(options.replicas());
    String absence = torch.absence();
    introduce("torch", absence);
    if (absence == null) {
      try {
        torch.results(problems).forEach(result -> report(result, result.problem().toString()));
      } catch (IllegalStateException e) {
        out.println("WRONG: " + e.getMessage());
        right = false;
      }
    }
  }

  private void run(Problem problem, Place place, boolean checks, Progress progress) {
    List<Contender> contenders = new ArrayList<>();
    try (Operands operands = new Operands(problem, place)) {
      try {
        contenders.add(new Copies(operands));
        contenders.add(layer(operands));
        if (options.peers()) {
          place.peers().stream()
              .filter(peer -> peer.absence() == null)
              .forEach(peer -> contenders.add(peer.open(operands)));
        }
        for (Pass pass : problem.passes()) {
          run(operands, contenders, pass, checks);
          progress.step();
        }
      } finally {
        contenders.forEach(Contender::close);
      }
    }
  }

  /** For tests, which have another that is wrong. */
  Contender layer(Operands operands) {
    return new Layer(operands);
  }

  /**
   * @param checks whether to look at the results too, which takes as long as timing them
   */
  private void run(Operands operands, List<Contender> contenders, Pass pass, boolean checks) {
    List<List<Way>> ways = contenders.stream().map(contender -> contender.ways(pass)).toList();
    List<Way.Call> calls = ways.stream().flatMap(List::stream).map(Way::call).toList();
    List<Times> times = operands.place.time(operands.sets, calls);
    Expected expected = checks ? operands.reference.of(pass) : null;
    Map<String, Findings> ofPass =
        findings.computeIfAbsent(new Case(operands.problem, pass), key -> new LinkedHashMap<>());
    int next = 0;
    for (int i = 0; i < contenders.size(); i++) {
      Contender contender = contenders.get(i);
      double error = 0;
      double enqueue = Double.NaN;
      for (Way way : ways.get(i)) {
        error = checks ? Math.max(error, error(operands, contender, way, expected)) : error;
        enqueue = operands.place.microsecondsToEnqueue(operands.sets, way.call());
      }
      List<Times> own = times.subList(next, next + ways.get(i).size());
      next += own.size();
      ofPass.merge(
          contender.name(),
          new Findings(own, error, contender.allowedError(), enqueue),
          Findings::and);
    }
  }

  private static double error(Operands operands, Contender contender, Way way, Expected expected) {
    operands.poison();
    int set = operands.sets - 1;
    operands.place.each(part -> way.checked().run(part, set));
    if (contender instanceof Copies) {
      double[] x = new double[operands.x.length];
      for (int i = 0; i < x.length; i++) {
        x[i] = operands.x[i];
      }
      return new Expected(x, null, null).error(operands.values(operands::out, set), null, null);
    }
    return expected.error(
        operands.values(operands::out, set),
        expected.dresidual() == null ? null : operands.values(operands::dresidual, set),
        expected.parameters() == null ? null : contender.parameterGradients());
  }

  private void report(Problem problem) {
    out.println(problem);
    for (Pass pass : problem.passes()) {
      Map<String, Findings> ofPass = findings.get(new Case(problem, pass));
      Times copy = ofPass.get(Copies.NAME).fastest();
      ofPass.forEach((impl, found) -> report(problem, pass, impl, found, copy));
    }
    out.flush();
  }

  private void report(Problem problem, Pass pass, String impl, Findings found, Times copy) {
    discarded += found.discarded();
    Times fastest = found.fastest();
    if (found.ways().isEmpty()) {
      line(pass, impl, "does not do this");
    } else if (!found.isRight()) {
      line(pass, impl, "WRONG: an error of %.3g, allowed is %.3g", found.error(), found.allowed());
      right = false;
    } else if (fastest == null) {
      disturbed++;
      line(pass, impl, "no time: a thread waited for a processor in %d samples", found.discarded());
    } else if (copy == null) {
      line(pass, impl, "no time: the copies have none");
    } else {
      Result result =
          new Result(
              problem,
              pass,
              options.device(),
              options.replicas(),
              threads,
              impl,
              fastest,
              fastest.ratio(copy),
              found.error());
      report(
          result,
          Double.isNaN(found.enqueue())
              ? "%d sample(s) discarded".formatted(found.discarded())
              : String.format(Locale.ROOT, "%.1f us to enqueue", found.enqueue()));
    }
  }

  private void report(Result result, String remark) {
    results.add(result);
    Times times = result.times();
    line(
        result.pass(),
        result.impl(),
        "%10.1f us (%.1f to %.1f) %6.2f copies %7.1f GB/s  error %.1e  %s",
        times.median(),
        times.p10(),
        times.p90(),
        result.copies(),
        result.gigabytesPerSecond(),
        result.maxError(),
        remark);
  }

  private void line(Pass pass, String impl, String format, Object... values) {
    out.printf("  %-18s %-9s %s%n", pass.text(), impl, String.format(Locale.ROOT, format, values));
  }

  private void conclude() throws IOException {
    new Summary(results).lines().forEach(out::println);
    out.printf(
        "%d result(s); %d sample(s) discarded, in which a thread waited for a processor%s%n",
        results.size(),
        discarded,
        disturbed == 0 ? "" : "; %d without a time for that".formatted(disturbed));
    if (results.isEmpty()) {
      out.println("No time at all: the machine was too busy, or nothing was right.");
    }
    if (options.device() == Device.cpu) {
      out.println("On the CPU a call returns when it is done: it is not enqueued.");
    }
    if (options.json() != null) {
      write(options.json(), JsonReport.text(results).getBytes(StandardCharsets.UTF_8));
    }
    if (options.plots() != null) {
      for (Map.Entry<String, byte[]> png : new Plots(results).pngs().entrySet()) {
        write(options.plots().resolve(png.getKey()), png.getValue());
      }
    }
    out.flush();
  }

  private void write(Path file, byte[] content) throws IOException {
    Files.write(file, content);
    out.println("written: " + file);
  }
}
