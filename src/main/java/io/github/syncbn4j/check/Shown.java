package io.github.syncbn4j.check;

/** What a message shows of text that may come from a file: short, without control characters. */
public final class Shown {
  private static final int LONGEST = 80;

  private Shown() {}

  public static String plain(Object value) {
    String text = String.valueOf(value);
    StringBuilder shown = new StringBuilder();
    for (int i = 0; i < Math.min(text.length(), LONGEST); i++) {
      char c = text.charAt(i);
      if (Character.isISOControl(c) || Character.isSurrogate(c)) {
        shown.append("\\u%04x".formatted((int) c));
      } else {
        shown.append(c);
      }
    }
    return shown.append(text.length() > LONGEST ? "..." : "").toString();
  }

  /** Strings in quotes, so that "1" and 1 differ. */
  public static String quoted(Object value) {
    return value instanceof String ? '"' + plain(value) + '"' : plain(value);
  }
}
