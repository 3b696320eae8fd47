package io.github.syncbn4j.gpu;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

class FigureTest {
  @Test
  void figure_isOneLineOfJson() throws IOException {
    String line = printed(Figure.of("time").with("text", "a \"quoted\"\n\\ text").with("n", 3));
    assertThat(line).startsWith("{\"figure\": \"time\", ").doesNotContain("\n");
    try (JsonParser parser = new JsonFactory().createParser(line)) {
      while (parser.nextToken() != null) {
        if ("text".equals(parser.currentName()) && parser.currentToken().isScalarValue()) {
          assertThat(parser.getText()).isEqualTo("a  quoted    text");
        }
      }
    }
  }

  @Test
  void numbers_haveSixDigits_andThoseThatAreNoneAreNull() throws IOException {
    String line =
        printed(
            Figure.of("time")
                .with("values", List.of(1234.56789, 1e-9, 7L, Double.NaN))
                .with("host", null)
                .with("cold", true));
    assertThat(line).contains("[1234.57, 1.0E-9, 7, null]", "\"host\": null", "\"cold\": true");
    try (JsonParser parser = new JsonFactory().createParser(line)) {
      JsonToken last = null;
      for (JsonToken token = parser.nextToken(); token != null; token = parser.nextToken()) {
        last = token;
      }
      assertThat(last).isEqualTo(JsonToken.END_OBJECT);
    }
  }

  private static String printed(Figure figure) {
    PrintStream out = System.out;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
    try {
      figure.print();
    } finally {
      System.setOut(out);
    }
    List<String> lines = Arrays.asList(bytes.toString(StandardCharsets.UTF_8).split("\n"));
    assertThat(lines).hasSize(2).first().isEqualTo("");
    return lines.get(1);
  }
}
