package io.github.syncbn4j.state;

/**
 * Text from a file that nobody vouches for, made fit for a message: quoted, short, without control
 * characters.
 */
final class Quote {
  private static final int LONGEST = 80;

  private Quote() {}

  static String of(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (int i = 0; i < Math.min(text.length(), LONGEST); i++) {
      char c = text.charAt(i);
      if (Character.isISOControl(c) || Character.isSurrogate(c)) {
        quoted.append("\\u%04x".formatted((int) c));
      } else {
        quoted.append(c);
      }
    }
    return quoted.append(text.length() > LONGEST ? "...\"" : "\"").toString();
  }
}
