package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.cli.train.TrainingRun.Curves;
import java.io.PrintWriter;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** What {@code syncbn train} prints of its results: sync and local side by side. */
final class TextReport {
  private static final int WIDTH = 11;

  private final PrintWriter out;
  private final TrainJob.Options options;
  private final Results results;

  TextReport(PrintWriter out, TrainJob.Options options, Results results) {
    this.out = out;
    this.options = options;
    this.results = results;
  }

  void print(int stepsPerEpoch) {
    epochs(stepsPerEpoch);
    out.println();
    if (results.sync() != null) {
      proof();
      out.println();
    }
    if (results.local() != null && options.replicas() > 1) {
      line(
          "local normalizes with rank 0's moving statistics in the test; with the mean of all"
              + " replicas' it has %.3f",
          results.local().meanAccuracy());
    }
  }

  /** The last line. */
  void printAccuracy() {
    StringBuilder text = new StringBuilder("test accuracy:");
    if (results.sync() != null) {
      text.append(String.format(Locale.ROOT, " sync %.3f", last(results.sync())));
    }
    if (results.local() != null) {
      text.append(results.sync() == null ? "" : ",");
      text.append(String.format(Locale.ROOT, " local %.3f", last(results.local())));
    }
    out.println(text);
  }

  private static double last(Curves curves) {
    return curves.accuracy()[curves.accuracy().length - 1];
  }

  private void epochs(int stepsPerEpoch) {
    out.printf(
        Locale.ROOT,
        "%-7s%" + 2 * WIDTH + "s   %" + 2 * WIDTH + "s%n",
        "",
        "training loss",
        "test accuracy");
    out.println(row("epoch", "sync", "local", "sync", "local"));
    for (int epoch = 0; epoch < options.epochs(); epoch++) {
      out.println(
          row(
              String.valueOf(epoch + 1),
              meanLoss(results.sync(), epoch, stepsPerEpoch),
              meanLoss(results.local(), epoch, stepsPerEpoch),
              accuracy(results.sync(), epoch),
              accuracy(results.local(), epoch)));
    }
  }

  private static String row(String epoch, String... values) {
    return String.format(
        "%5s  %11s%11s   %11s%11s", epoch, values[0], values[1], values[2], values[3]);
  }

  private static String meanLoss(Curves curves, int epoch, int steps) {
    return curves == null
        ? "-"
        : fixed(
            Arrays.stream(curves.loss(), epoch * steps, (epoch + 1) * steps)
                .average()
                .orElseThrow());
  }

  private static String accuracy(Curves curves, int epoch) {
    return curves == null ? "-" : fixed(curves.accuracy()[epoch]);
  }

  private void proof() {
    int images = options.replicas() * options.batch();
    Map<String, Proof> columns = new LinkedHashMap<>();
    columns.put("sync", results.syncProof());
    if (results.local() != null) {
      columns.put("local", results.localProof());
    }
    columns.put("1 x " + images, results.wholeProof());
    line("The first %d steps, against one replica with all %d images:", Proof.STEPS, images);
    line("%-38s%s", "", cells(columns.keySet().stream()));
    fact("loss of step 1", columns, proof -> fixed(proof.firstLoss()));
    fact(
        "mean loss of steps %d to %d".formatted(Proof.STEPS - Proof.LAST + 1, Proof.STEPS),
        columns,
        proof -> fixed(proof.lastLoss()));
    fact("at most half?", columns, proof -> yes(proof.halves()));
    fact(
        "farthest from 1 x %d in any step".formatted(images),
        columns,
        proof -> scientific(proof.distance()));
    fact("within 1e-4?", columns, proof -> yes(proof.isWholeBatch()));
    line("proof: %s", verdict());
  }

  private void fact(String name, Map<String, Proof> columns, Function<Proof, String> value) {
    line("  %-36s%s", name, cells(columns.values().stream().map(value)));
  }

  private static String cells(Stream<String> values) {
    return values.map(value -> String.format("%11s", value)).collect(Collectors.joining());
  }

  private String verdict() {
    int replicas = options.replicas();
    int whole = replicas * options.batch();
    String equal =
        "%d x %d images = 1 x %d with synchronized normalization"
            .formatted(replicas, options.batch(), whole);
    return switch (results.verdict(replicas)) {
      case HOLDS ->
          "holds, "
              + equal
              + (results.local() == null ? "" : ", and not with normalization per replica");
      case TOO_FEW_REPLICAS ->
          (replicas == 1
                  ? "none, one replica has the whole batch"
                  : "half, " + equal + ", but its steps see too few classes for the loss to halve")
              + ": take --replicas %d or more".formatted(Verdict.REPLICAS);
      case FAILED -> "FAILED, " + whyFailed(whole);
    };
  }

  private String whyFailed(int whole) {
    if (!results.syncProof().isWholeBatch()) {
      return "synchronized normalization is not that of 1 x " + whole + " images";
    }
    return results.syncProof().halves()
        ? "normalization per replica does the same"
        : "the loss with synchronized normalization did not halve"
            + (results.wholeProof().halves() ? "" : ", nor did that of 1 x " + whole + " images");
  }

  private void line(String format, Object... values) {
    out.println(String.format(Locale.ROOT, format, values).stripTrailing());
  }

  private static String yes(boolean value) {
    return value ? "yes" : "no";
  }

  private static String fixed(double value) {
    return String.format(Locale.ROOT, "%.3f", value);
  }

  private static String scientific(double value) {
    return String.format(Locale.ROOT, "%.1e", value);
  }
}
