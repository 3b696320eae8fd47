package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.cli.output.Charts;
import java.awt.BasicStroke;
import java.awt.Color;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.function.ToDoubleFunction;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.Styler.LegendLayout;
import org.knowm.xchart.style.Styler.LegendPosition;
import org.knowm.xchart.style.lines.SeriesLines;
import org.knowm.xchart.style.markers.SeriesMarkers;

/** The results as pictures: copies by tensor size, and time against each peer. */
final class Plots {
  private static final double MEGABYTE = 1e6;
  private static final Color FLOOR = new Color(0x1B1B1E);

  private final List<Result> results;

  Plots(List<Result> results) {
    this.results = results;
  }

  /** By file name. */
  Map<String, byte[]> pngs() throws IOException {
    Map<String, byte[]> pngs = new LinkedHashMap<>();
    for (boolean cold : new boolean[] {true, false}) {
      String state = cold ? "cold" : "warm";
      add(pngs, "copies-" + state + ".png", charts(pass -> copies(pass, cold)));
      List<String> peers =
          results.stream()
              .filter(result -> !result.isCopy() && !isOurs(result))
              .map(Result::impl)
              .distinct()
              .toList();
      for (String peer : peers) {
        add(pngs, peer + "-" + state + ".png", charts(pass -> against(peer, pass, cold)));
      }
    }
    return pngs;
  }

  private interface ChartOfPass {
    /** Null if there is nothing to show. */
    XYChart of(Pass pass);
  }

  private static List<XYChart> charts(ChartOfPass chart) {
    List<XYChart> charts = new ArrayList<>();
    for (Pass pass : Pass.values()) {
      XYChart ofPass = chart.of(pass);
      if (ofPass != null) {
        charts.add(ofPass);
      }
    }
    return charts;
  }

  private static void add(Map<String, byte[]> pngs, String name, List<XYChart> charts)
      throws IOException {
    if (!charts.isEmpty()) {
      int columns = charts.size() % 2 == 0 ? 2 : 1; // no place may stay empty
      pngs.put(name, Charts.png(charts, charts.size() / columns, columns));
    }
  }

  private static boolean isOurs(Result result) {
    return result.impl().equals(Layer.NAME);
  }

  private List<Result> of(Pass pass, boolean cold, Predicate<Result> filter) {
    return results.stream()
        .filter(result -> result.pass() == pass && result.problem().cold() == cold)
        .filter(filter)
        .sorted(Comparator.comparingLong(result -> result.problem().bytes()))
        .toList();
  }

  private XYChart copies(Pass pass, boolean cold) {
    List<Result> shown = of(pass, cold, Plots::isOurs);
    if (shown.isEmpty()) {
      return null;
    }
    XYChart chart = chart(pass, cold, "time in copies of x");
    addByKind(chart, shown, Result::copies);
    boolean again = pass.floorOnChip() < pass.floor();
    addLine(chart, again ? "read twice" : "its bytes", shown, pass.floor(), Charts.line(2f));
    if (again) {
      addLine(chart, "read once", shown, pass.floorOnChip(), Charts.dashes());
    }
    return chart;
  }

  private XYChart against(String peer, Pass pass, boolean cold) {
    List<Result> theirs = of(pass, cold, result -> result.impl().equals(peer));
    Map<Problem, Times> ours = new LinkedHashMap<>();
    of(pass, cold, Plots::isOurs).forEach(result -> ours.put(result.problem(), result.times()));
    List<Result> shown =
        theirs.stream().filter(result -> ours.containsKey(result.problem())).toList();
    if (shown.isEmpty()) {
      return null;
    }
    XYChart chart = chart(pass, cold, "time of %s / of syncbn4j".formatted(peer));
    addByKind(chart, shown, result -> result.times().ratio(ours.get(result.problem())));
    addLine(chart, "as fast", shown, 1, Charts.line(2f));
    return chart;
  }

  private static XYChart chart(Pass pass, boolean cold, String what) {
    XYChart chart =
        Charts.chart(
            "%s, %s".formatted(pass.text(), cold ? "from memory" : "in the cache"),
            "megabytes of x; channels first or last",
            what);
    chart.getStyler().setXAxisLogarithmic(true).setYAxisMin(0.0);
    chart.getStyler().setXAxisDecimalPattern("0.##").setYAxisDecimalPattern("0.0");
    // Too many series for a line below.
    chart.getStyler().setLegendPosition(LegendPosition.OutsideE);
    chart.getStyler().setLegendLayout(LegendLayout.Vertical);
    return chart;
  }

  private static double megabytes(Result result) {
    return result.problem().bytes() / MEGABYTE;
  }

  private static void addByKind(
      XYChart chart, List<Result> results, ToDoubleFunction<Result> value) {
    Map<String, List<Result>> kinds = new LinkedHashMap<>();
    for (Result result : results) {
      Problem problem = result.problem();
      String kind = problem.dtypeText() + (problem.channelsLast() ? " last" : " first");
      kinds.computeIfAbsent(kind, key -> new ArrayList<>()).add(result);
    }
    kinds.entrySet().stream()
        .sorted(Map.Entry.comparingByKey())
        .forEach(
            entry -> {
              double[] x = entry.getValue().stream().mapToDouble(Plots::megabytes).toArray();
              double[] y = entry.getValue().stream().mapToDouble(value).toArray();
              boolean last = entry.getValue().get(0).problem().channelsLast();
              // No lines: several shapes have one size.
              chart
                  .addSeries(entry.getKey(), x, y)
                  .setMarker(last ? SeriesMarkers.DIAMOND : SeriesMarkers.CIRCLE)
                  .setLineStyle(SeriesLines.NONE);
            });
  }

  private static void addLine(
      XYChart chart, String name, List<Result> results, double value, BasicStroke stroke) {
    double[] x = {megabytes(results.get(0)), megabytes(results.get(results.size() - 1))};
    XYSeries line = chart.addSeries(name, x, new double[] {value, value});
    line.setMarker(SeriesMarkers.NONE).setLineStyle(stroke).setLineColor(FLOOR);
  }
}
