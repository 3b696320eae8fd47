package io.github.syncbn4j.cli;

/** Keeps what comes from files and libraries to one line of a terminal. */
final class Lines {
  private static final int LONGEST_VALUE = 60;

  private Lines() {}

  /** A value as a message shows it. */
  static String shortened(String value) {
    return value.length() <= LONGEST_VALUE ? value : value.substring(0, LONGEST_VALUE) + "...";
  }

  /** Control characters, line feeds among them, escaped. */
  static String one(String text) {
    StringBuilder line = new StringBuilder();
    for (char c : text.toCharArray()) {
      line.append(Character.isISOControl(c) ? "\\u%04x".formatted((int) c) : String.valueOf(c));
    }
    return line.toString();
  }

  /** The message of an exception, or its kind if it has none. */
  static String message(Throwable e) {
    return one(e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage());
  }
}
