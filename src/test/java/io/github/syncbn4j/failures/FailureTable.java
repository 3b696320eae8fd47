package io.github.syncbn4j.failures;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;

/**
 * A table of {@code docs/failures.md}: what failures look like in one way to run. Checks that the
 * page says what was seen, times aside; with {@code -Dsyncbn.failures=write}, writes it.
 */
final class FailureTable {
  private static final Path PAGE = Path.of("docs", "failures.md");
  private static final String HEADING = "## ";
  private static final List<String> HEAD =
      List.of(
          "| a rank | which | exception | its text | seconds | state |",
          "| --- | --- | --- | --- | --- | --- |");

  /**
   * What the other ranks saw.
   *
   * @param exception simple name of its class; empty if there was none
   * @param seconds from their call to the exception, in the slowest
   */
  record Seen(String exception, String text, double seconds, String state) {}

  private record Row(Failure failure, int rank, String cells) {}

  private final String heading;
  private final List<Row> rows = new ArrayList<>();

  FailureTable(String title) {
    this.heading = HEADING + title;
  }

  synchronized void add(Failure failure, int rank, Seen seen) {
    String cells =
        String.format(
            Locale.ROOT,
            "| %s | %d | %s | %s | %.1f | %s |",
            failure,
            rank,
            seen.exception(),
            seen.text().replace("|", "\\|").replaceAll("\\s+", " "),
            seen.seconds(),
            seen.state());
    rows.add(new Row(failure, rank, cells));
  }

  /** A failure that cannot be, and why. */
  synchronized void addNone(Failure failure, String reason) {
    rows.add(new Row(failure, 0, "| %s | | | cannot be: %s | | |".formatted(failure, reason)));
  }

  /** After all: compares or writes. */
  synchronized void finish() throws IOException {
    rows.sort(Comparator.comparing(Row::failure).thenComparing(Row::rank));
    List<String> seen = rows.stream().map(Row::cells).toList();
    List<String> page = new ArrayList<>(Files.readAllLines(PAGE));
    int start = page.indexOf(heading);
    assertThat(start).as("%s in %s", heading, PAGE).isNotNegative();
    int end = start + 1;
    while (end < page.size() && !page.get(end).startsWith(HEADING)) {
      end++;
    }
    List<String> section = page.subList(start, end);
    if ("write".equals(System.getProperty("syncbn.failures"))) {
      section.removeIf(line -> line.startsWith("| ") || line.isBlank());
      section.add(1, "");
      section.addAll(HEAD);
      section.addAll(seen);
      section.add("");
      Files.write(PAGE, page);
      return;
    }
    List<String> table = section.stream().filter(line -> line.startsWith("| ")).toList();
    assertThat(withoutTimes(seen))
        .as("what was seen, against %s", PAGE)
        .isEqualTo(withoutTimes(table.subList(Math.min(HEAD.size(), table.size()), table.size())));
  }

  private static List<String> withoutTimes(List<String> lines) {
    return lines.stream()
        .map(line -> line.replaceAll("\\| [0-9.]+ \\| ([^|]*)\\|$", "| $1|"))
        .toList();
  }
}
