package io.github.syncbn4j.cli.bench;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;

/** The results in a few lines: of each kind of tensor and pass, the median over the shapes. */
final class Summary {
  private final List<Result> results;

  Summary(List<Result> results) {
    this.results = results;
  }

  /** A line for each kind; none if the layer has no time. */
  List<String> lines() {
    Map<String, List<Result>> kinds = new TreeMap<>();
    for (Result result : results) {
      Problem problem = result.problem();
      String kind =
          "%s %s %s %s"
              .formatted(
                  problem.layout(),
                  problem.dtypeText(),
                  result.pass().text(),
                  problem.cold() ? "cold" : "warm");
      kinds.computeIfAbsent(kind, key -> new ArrayList<>()).add(result);
    }
    return kinds.entrySet().stream()
        .filter(kind -> kind.getValue().stream().anyMatch(Summary::isOurs))
        .map(kind -> line(kind.getKey(), kind.getValue()))
        .toList();
  }

  private static boolean isOurs(Result result) {
    return result.impl().equals(Layer.NAME);
  }

  private static String line(String kind, List<Result> results) {
    StringBuilder line = new StringBuilder("%-48s".formatted(kind));
    List<Result> ours = results.stream().filter(Summary::isOurs).toList();
    line.append(range(ours, Result::copies)).append(" copies");
    Map<Problem, Times> times = new LinkedHashMap<>();
    ours.forEach(result -> times.put(result.problem(), result.times()));
    results.stream()
        .filter(result -> !result.isCopy() && !isOurs(result))
        .filter(result -> times.containsKey(result.problem()))
        .collect(Collectors.groupingBy(Result::impl, TreeMap::new, Collectors.toList()))
        .forEach(
            (peer, theirs) ->
                line.append(", ")
                    .append(peer)
                    .append(" takes ")
                    .append(range(theirs, r -> r.times().ratio(times.get(r.problem()))))
                    .append(" times as long"));
    return line.toString();
  }

  /** The median, and the extremes. */
  private static String range(List<Result> results, ToDoubleFunction<Result> value) {
    double[] sorted = results.stream().mapToDouble(value).sorted().toArray();
    int middle = sorted.length / 2;
    double median =
        sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    return String.format(
        Locale.ROOT, "%.2f (%.2f to %.2f)", median, sorted[0], sorted[sorted.length - 1]);
  }
}
