package io.github.syncbn4j.cli;

/**
 * Where {@code java -jar} starts: says what the jar alone lacks. Names no other library's types.
 */
public final class Main {
  private Main() {}

  /** Runs a command and ends the JVM with its exit status. */
  public static void main(String[] args) {
    try {
      Class.forName("picocli.CommandLine");
    } catch (ClassNotFoundException e) {
      System.err.println(
          "syncbn: the command line needs info.picocli:picocli on the class path, which java -jar"
              + " does not have: scripts/syncbn has all that its commands need");
      System.exit(1);
    }
    Syncbn.main(args);
  }
}
