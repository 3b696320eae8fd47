package io.github.syncbn4j.cli.output;

import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Font;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.BitmapEncoder.BitmapFormat;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler.LegendLayout;
import org.knowm.xchart.style.Styler.LegendPosition;

/** How the charts of this command line look. */
public final class Charts {
  public static final int WIDTH = 760;
  public static final int HEIGHT = 520;

  private Charts() {}

  /** A PNG of charts beside and below each other. */
  public static byte[] png(List<XYChart> charts, int rows, int columns) throws IOException {
    ByteArrayOutputStream png = new ByteArrayOutputStream();
    BitmapEncoder.saveBitmap(charts, rows, columns, png, BitmapFormat.PNG);
    return png.toByteArray();
  }

  public static BasicStroke line(float width) {
    return new BasicStroke(width, BasicStroke.CAP_ROUND, BasicStroke.JOIN_ROUND);
  }

  /** Over a line that it covers, so that both are seen. */
  public static BasicStroke dashes() {
    return new BasicStroke(
        2f, BasicStroke.CAP_BUTT, BasicStroke.JOIN_ROUND, 10f, new float[] {6f, 5f}, 0f);
  }

  /** Without series. */
  public static XYChart chart(String title, String x, String y) {
    System.setProperty("java.awt.headless", "true");
    XYChart chart =
        new XYChartBuilder()
            .width(WIDTH)
            .height(HEIGHT)
            .title(title)
            .xAxisTitle(x)
            .yAxisTitle(y)
            .build();
    Font text = new Font(Font.SANS_SERIF, Font.PLAIN, 16);
    chart
        .getStyler()
        .setChartBackgroundColor(Color.WHITE)
        .setPlotBorderVisible(false)
        .setChartTitleBoxVisible(false)
        .setChartTitleFont(new Font(Font.SANS_SERIF, Font.BOLD, 20))
        .setChartPadding(16)
        .setLegendFont(text)
        .setLegendBorderColor(Color.WHITE)
        .setLegendPosition(LegendPosition.OutsideS)
        .setLegendLayout(LegendLayout.Horizontal);
    chart.getStyler().setAxisTitleFont(text).setAxisTickLabelsFont(text);
    chart.getStyler().setAxisTitlePadding(14).setAxisTickPadding(8);
    chart.getStyler().setPlotGridLinesColor(new Color(0xE4E4E7));
    return chart;
  }
}
