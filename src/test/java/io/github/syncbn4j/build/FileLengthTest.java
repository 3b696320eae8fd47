package io.github.syncbn4j.build;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** A source file is short, or docs/decisions.md says why it is not. */
class FileLengthTest {
  private static final int MOST_LINES = 400;

  private static final List<Path> FOLDERS =
      List.of(Path.of("src"), Path.of("native"), Path.of("cmake"), Path.of("scripts"));

  /** By its ending; scripts have none. */
  private static final Pattern SOURCE =
      Pattern.compile("[^.]+|.+\\.(java|cpp|h|inc|cu|cuh|cmake|txt|map|py|xml)");

  private static final Path DECISIONS = Path.of("docs", "decisions.md");
  private static final String HEADING = "## Files of more than " + MOST_LINES + " lines";
  private static final Pattern ENTRY = Pattern.compile("\\* `([^`]+)`: \\S.+");

  @Test
  void longFiles_areThoseWithAReason() throws IOException {
    Map<String, Long> tooLong = new TreeMap<>();
    for (Path file : sources()) {
      long lines = lines(file);
      if (lines > MOST_LINES) {
        tooLong.put(file.toString(), lines);
      }
    }
    assertThat(new TreeSet<>(namedWithAReason()))
        .as("\"%s\" in %s; too long are %s", HEADING, DECISIONS, tooLong)
        .isEqualTo(tooLong.keySet());
  }

  private static List<Path> sources() throws IOException {
    List<Path> sources = new ArrayList<>(List.of(Path.of("pom.xml")));
    for (Path folder : FOLDERS) {
      try (Stream<Path> files = Files.walk(folder)) {
        files
            .filter(Files::isRegularFile)
            .filter(file -> SOURCE.matcher(file.getFileName().toString()).matches())
            .filter(file -> !file.startsWith(Path.of("src", "test", "resources")))
            .forEach(sources::add);
      }
    }
    assertThat(sources).hasSizeGreaterThan(400);
    return sources;
  }

  private static long lines(Path file) throws IOException {
    try (Stream<String> lines = Files.lines(file)) {
      return lines.count();
    }
  }

  private static List<String> namedWithAReason() throws IOException {
    return Files.readAllLines(DECISIONS).stream()
        .dropWhile(line -> !line.equals(HEADING))
        .skip(1)
        .takeWhile(line -> !line.startsWith("## "))
        .map(ENTRY::matcher)
        .filter(Matcher::matches)
        .map(entry -> entry.group(1))
        .toList();
  }
}
