package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.output.Progress;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.IntConsumer;

/** {@code syncbn bench} from its options to its report, on the CPU. */
public class BenchJob {
  private static final Path CACHES = Path.of("/sys/devices/system/cpu/cpu0/cache");
  private static final long CACHE_WHERE_UNKNOWN = 32L << 20;

  /**
   * @param peers whether to time other implementations too
   * @param json file to write; null for none
   * @param plots folder to write; null for none
   */
  public record Options(
      Suite suite, int replicas, int threads, boolean peers, Path json, Path plots) {}

  private final Options options;
  private final List<Problem> problems;
  private final long cacheBytes;
  private final Waits waits;
  private final PrintWriter out;
  private final List<Result> results = new ArrayList<>();
  private int discarded;
  private int disturbed;
  private boolean right = true;

  /**
   * @throws IOException if what the options name cannot be written
   * @throws IllegalArgumentException for more replicas than images
   */
  public BenchJob(Options options, PrintWriter out) throws IOException {
    this(options, options.suite().problems(), lastLevelCache(), new Waits(), out);
  }

  /** For tests: of other problems, on a machine that may look otherwise. */
  BenchJob(Options options, List<Problem> problems, long cacheBytes, Waits waits, PrintWriter out)
      throws IOException {
    this.options = options;
    this.problems = problems;
    this.cacheBytes = cacheBytes;
    this.waits = waits;
    this.out = out;
    for (Problem problem : problems) {
      if (problem.images() < options.replicas()) {
        throw new IllegalArgumentException(
            "--replicas is %d, but this suite has batches of %d image(s)"
                .formatted(options.replicas(), problem.images()));
      }
    }
    requireWritable();
  }

  /**
   * Lets this process keep the memory that it frees, so that a peer that allocates its outputs does
   * not pay for fresh pages each time. Before libtorch is loaded.
   */
  public static void prepareProcess() {
    NativeCopy.keepFreedMemory();
  }

  /** In bytes. */
  private static long lastLevelCache() {
    long largest = 0;
    for (int index = 0; Files.exists(CACHES.resolve("index" + index)); index++) {
      try {
        String size = Files.readString(CACHES.resolve("index" + index).resolve("size")).strip();
        largest = Math.max(largest, Long.parseLong(size.replace("K", "")) << 10);
      } catch (IOException | NumberFormatException e) {
        // It does not say; another index may.
      }
    }
    return largest == 0 ? CACHE_WHERE_UNKNOWN : largest;
  }

  /**
   * Measures, prints and writes.
   *
   * @return whether every result was right, and there are any
   */
  public boolean run() throws IOException {
    List<Peer> peers = introduce();
    int passes = problems.stream().mapToInt(problem -> problem.passes().size()).sum();
    try (Progress progress = Progress.of("bench", "passes", passes);
        NativeCopy copy = new NativeCopy(options.threads());
        ReplicaGroup group =
            ReplicaGroup.builder().cpus(options.replicas()).threads(options.threads()).build()) {
      for (Problem problem : problems) {
        progress.phase(problem.toString());
        run(problem, copy, group, peers, progress);
      }
    }
    conclude();
    return right && !results.isEmpty();
  }

  /** Now, not when everything has been measured. */
  private void requireWritable() throws IOException {
    if (options.json() != null) {
      Files.writeString(options.json(), JsonReport.text(List.of()));
    }
    if (options.plots() != null) {
      Files.createDirectories(options.plots());
    }
  }

  private List<Peer> introduce() {
    out.printf(
        "suite %s: %d replica(s), %d thread(s); cold: sets of tensors beyond twice the cache of %d MB%n",
        options.suite(), options.replicas(), options.threads(), cacheBytes >> 20);
    if (options.peers()) {
      for (Peer peer : Peer.values()) {
        String absence = peer.absence();
        out.printf("peer %s: %s%n", peer.text(), absence == null ? "found" : absence);
      }
    }
    out.flush();
    return options.peers() ? Peer.found() : List.of();
  }

  private void run(
      Problem problem, NativeCopy copy, ReplicaGroup group, List<Peer> peers, Progress progress) {
    out.println(problem);
    List<Contender> contenders = new ArrayList<>();
    try (Operands operands = new Operands(problem, cacheBytes)) {
      try {
        contenders.add(new Copies(operands, copy));
        contenders.add(layer(operands, group));
        peers.forEach(peer -> contenders.add(peer.open(operands, options.threads())));
        for (Pass pass : problem.passes()) {
          run(operands, contenders, pass);
          progress.step();
        }
      } finally {
        contenders.forEach(Contender::close);
      }
    }
    out.flush();
  }

  /** For tests, which have another that is wrong. */
  Contender layer(Operands operands, ReplicaGroup group) {
    return new Layer(operands, group);
  }

  private record Entry(Contender contender, Way way) {}

  private void run(Operands operands, List<Contender> contenders, Pass pass) {
    List<Entry> entries = new ArrayList<>();
    for (Contender contender : contenders) {
      contender.ways(pass).forEach(way -> entries.add(new Entry(contender, way)));
    }
    List<IntConsumer> calls = entries.stream().map(entry -> entry.way.call()).toList();
    List<Times> times = Sampler.run(waits, operands.sets, calls);
    Expected expected = operands.reference.of(pass);
    Times copy = null;
    for (Contender contender : contenders) {
      Times fastest = null;
      double error = 0;
      int discards = 0;
      boolean ran = false;
      for (int i = 0; i < entries.size(); i++) {
        if (entries.get(i).contender == contender) {
          ran = true;
          error = Math.max(error, error(operands, entries.get(i), expected));
          discards += times.get(i).discarded();
          fastest = faster(fastest, times.get(i));
        }
      }
      discarded += discards;
      if (!ran) {
        line(pass, contender, "does not do this");
      } else if (!(error <= contender.allowedError())) {
        line(
            pass,
            contender,
            "WRONG: an error of %.3g, allowed is %.3g",
            error,
            contender.allowedError());
        right = false;
      } else if (fastest == null) {
        disturbed++;
        line(pass, contender, "no time: a thread waited for a processor in %d samples", discards);
      } else {
        copy = contender instanceof Copies ? fastest : copy;
        report(operands.problem, pass, contender, fastest, copy, error, discards);
      }
    }
  }

  /** The one so far, or another that has all its samples and is faster. */
  private static Times faster(Times soFar, Times other) {
    boolean counts = other.samples() == Sampler.SAMPLES;
    return counts && (soFar == null || other.median() < soFar.median()) ? other : soFar;
  }

  private static double error(Operands operands, Entry entry, Expected expected) {
    operands.poison();
    int set = operands.sets - 1;
    entry.way.checked().accept(set);
    if (entry.contender instanceof Copies) {
      double[] x = new double[operands.x.length];
      for (int i = 0; i < x.length; i++) {
        x[i] = operands.x[i];
      }
      return new Expected(x, null, null).error(operands.values(operands.out(set)), null, null);
    }
    return expected.error(
        operands.values(operands.out(set)),
        operands.values(operands.dresidual(set)),
        expected.parameters() == null ? null : entry.contender.parameterGradients());
  }

  private void report(
      Problem problem,
      Pass pass,
      Contender contender,
      Times times,
      Times copy,
      double error,
      int discards) {
    if (copy == null) {
      line(pass, contender, "no time: the copies have none");
      return;
    }
    Result result =
        new Result(
            problem,
            pass,
            options.replicas(),
            options.threads(),
            contender.name(),
            times,
            times.median() / copy.median(),
            error);
    results.add(result);
    line(
        pass,
        contender,
        "%10.1f us (%.1f to %.1f) %6.2f copies %7.1f GB/s  error %.1e  %d sample(s) discarded",
        times.median(),
        times.p10(),
        times.p90(),
        result.copies(),
        result.gigabytesPerSecond(),
        error,
        discards);
  }

  private void line(Pass pass, Contender contender, String format, Object... values) {
    out.printf(
        "  %-18s %-9s %s%n",
        pass.text(), contender.name(), String.format(Locale.ROOT, format, values));
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
    out.println("On the CPU a call returns when it is done: it is not enqueued.");
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
