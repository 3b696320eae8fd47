package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Each of docs/lessons: the commands of its README's first block print what the README says. Its
 * line {@code It prints, numbers within 0.1:} states a tolerance; {@code It prints:} has none.
 */
class LessonsTest {
  static final Path LESSONS = Path.of("docs/lessons");

  private static final int LIMIT_SECONDS = 120;
  private static final Pattern PRINTS =
      Pattern.compile("It prints(?:, numbers within ([0-9.]+).*)?:");
  private static final Pattern NUMBER = Pattern.compile("-?\\d+(\\.\\d+)?");

  @TempDir private Path folder;

  static List<Path> lessons() throws IOException {
    try (Stream<Path> folders = Files.list(LESSONS)) {
      return folders.filter(Files::isDirectory).sorted().toList();
    }
  }

  @ParameterizedTest
  @MethodSource("lessons")
  void commands_printWhatTheReadmeSays(Path lesson) throws Exception {
    Page readme = Page.of(lesson.resolve("README.md"));
    Page.Block output = readme.blocks().get(1);
    Matcher introduction = PRINTS.matcher(output.introduction());
    assertThat(introduction.matches()).as(output.introduction()).isTrue();
    List<String> printed = new ArrayList<>();
    try (Checkout checkout = Checkout.built(folder)) {
      for (String command : commands(readme)) {
        printed.addAll(checkout.run(command, 0, LIMIT_SECONDS));
      }
    }
    if (introduction.group(1) == null) {
      assertThat(printed).isEqualTo(output.lines());
    } else {
      requireClose(printed, output.lines(), Double.parseDouble(introduction.group(1)));
    }
  }

  @Test
  void lessons_areInTheList() throws IOException {
    assertThat(lessons()).hasSizeGreaterThan(5);
    String list = Files.readString(LESSONS.resolve("README.md"));
    for (Path lesson : lessons()) {
      assertThat(list).contains("](" + lesson.getFileName() + ")");
    }
  }

  static List<String> commands(Page readme) {
    List<String> commands = readme.blocks().get(0).commands();
    assertThat(commands).as("commands of the first block").isNotEmpty();
    return commands;
  }

  private static void requireClose(List<String> printed, List<String> expected, double tolerance) {
    assertThat(printed.stream().map(LessonsTest::withoutNumbers).toList())
        .isEqualTo(expected.stream().map(LessonsTest::withoutNumbers).toList());
    List<Double> wanted = numbers(expected);
    List<Double> found = numbers(printed);
    for (int i = 0; i < wanted.size(); i++) {
      assertThat(found.get(i)).as("%s", printed).isCloseTo(wanted.get(i), within(tolerance));
    }
  }

  private static String withoutNumbers(String line) {
    return NUMBER.matcher(line).replaceAll("N");
  }

  private static List<Double> numbers(List<String> lines) {
    return NUMBER
        .matcher(String.join("\n", lines))
        .results()
        .map(MatchResult::group)
        .map(Double::valueOf)
        .toList();
  }
}
