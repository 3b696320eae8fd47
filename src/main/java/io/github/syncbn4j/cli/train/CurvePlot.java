package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.cli.output.Charts;
import io.github.syncbn4j.cli.train.TrainingRun.Curves;
import java.awt.BasicStroke;
import java.awt.Color;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYSeries;
import org.knowm.xchart.style.markers.SeriesMarkers;

/** The curves as a picture: the loss of the first steps, and the test accuracy by epoch. */
final class CurvePlot {
  private static final Color SYNC = new Color(0x2F8FC4);
  private static final Color LOCAL = new Color(0xD1495B);
  private static final Color WHOLE = new Color(0x1B1B1E);

  private CurvePlot() {}

  /** A PNG of two charts beside each other. */
  static byte[] png(TrainJob.Options options, Results results) throws IOException {
    return Charts.png(List.of(loss(options, results), accuracy(options, results)), 1, 2);
  }

  private static XYChart loss(TrainJob.Options options, Results results) {
    XYChart chart =
        Charts.chart("Training loss, first %d steps".formatted(Proof.STEPS), "step", "loss");
    String images = options.replicas() + " x " + options.batch() + " images";
    int whole = options.replicas() * options.batch();
    double[] steps = counted(Proof.STEPS);
    addLoss(chart, images + " per replica", steps, results.local(), Charts.line(2.5f), LOCAL);
    addLoss(chart, images + " synchronized", steps, results.sync(), Charts.line(6f), SYNC);
    addLoss(chart, "1 x " + whole + " images", steps, results.whole(), Charts.dashes(), WHOLE);
    chart.getStyler().setYAxisMin(0.0).setXAxisMin(0.0).setXAxisMax((double) Proof.STEPS);
    chart.getStyler().setYAxisDecimalPattern("0.0");
    chart.getStyler().setxAxisTickLabelsFormattingFunction(CurvePlot::everyTenth);
    return chart;
  }

  private static String everyTenth(double step) {
    return step % 10 == 0 ? String.valueOf((int) step) : "";
  }

  private static void addLoss(
      XYChart chart, String name, double[] steps, Curves curves, BasicStroke stroke, Color color) {
    if (curves != null) {
      int shown = Math.min(steps.length, curves.loss().length);
      series(
          chart,
          name,
          Arrays.copyOf(steps, shown),
          Arrays.copyOf(curves.loss(), shown),
          stroke,
          color);
    }
  }

  private static XYChart accuracy(TrainJob.Options options, Results results) {
    XYChart chart = Charts.chart("Test accuracy after each epoch", "epoch", "accuracy");
    double[] epochs = counted(options.epochs());
    if (results.local() != null) {
      series(chart, "per replica", epochs, results.local().accuracy(), Charts.line(2.5f), LOCAL)
          .setMarker(SeriesMarkers.CIRCLE);
    }
    if (results.sync() != null) {
      series(chart, "synchronized", epochs, results.sync().accuracy(), Charts.line(2.5f), SYNC)
          .setMarker(SeriesMarkers.CIRCLE);
    }
    chart.getStyler().setYAxisMin(0.0).setYAxisMax(1.0);
    chart.getStyler().setXAxisDecimalPattern("0").setYAxisDecimalPattern("0.0");
    return chart;
  }

  private static double[] counted(int n) {
    return IntStream.rangeClosed(1, n).asDoubleStream().toArray();
  }

  private static XYSeries series(
      XYChart chart, String name, double[] x, double[] y, BasicStroke stroke, Color color) {
    XYSeries series = chart.addSeries(name, x, y);
    series.setMarker(SeriesMarkers.NONE).setLineStyle(stroke).setLineColor(color);
    series.setMarkerColor(color);
    return series;
  }
}
