package io.github.syncbn4j.gpu;

import java.util.List;
import java.util.Locale;
import java.util.StringJoiner;

/**
 * Something that was measured, as a line of JSON on the standard output: scripts/gpu-verify puts
 * such lines into its result.
 */
public final class Figure {
  private final StringJoiner fields = new StringJoiner(", ", "{", "}");

  private Figure() {}

  /** What it is a figure of. */
  public static Figure of(String name) {
    return new Figure().with("figure", name);
  }

  /** Numbers, texts, truth values, and lists of them; what is not a finite number is null. */
  public Figure with(String field, Object value) {
    fields.add('"' + field + "\": " + json(value));
    return this;
  }

  private static String json(Object value) {
    if (value instanceof Double number) {
      // Six digits: more than any measurement has.
      return Double.isFinite(number)
          ? Double.toString(Double.parseDouble(String.format(Locale.ROOT, "%.6g", number)))
          : "null";
    }
    if (value instanceof Number || value instanceof Boolean || value == null) {
      return String.valueOf(value);
    }
    if (value instanceof List<?> list) {
      StringJoiner elements = new StringJoiner(", ", "[", "]");
      list.forEach(element -> elements.add(json(element)));
      return elements.toString();
    }
    return '"' + value.toString().replaceAll("[\"\\\\\\p{Cntrl}]", " ") + '"';
  }

  /** In one piece, on a line of its own. */
  public void print() {
    System.out.print("\n" + fields + "\n");
    System.out.flush();
  }
}
