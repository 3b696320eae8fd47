package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/**
 * Every piece of Java in README.md, CONTRIBUTING.md and docs is in a program that this build
 * compiles and runs, word for word but for comments and space.
 */
class JavaTest {
  private static final List<String> PROGRAMS = List.of("src/test/java", "src/it", "docs/lessons");
  private static final Pattern PIECE = Pattern.compile("(?ms)^```java\n(.*?)^```$");
  private static final Pattern COMMENT_OR_SPACE = Pattern.compile("//.*|\\s");

  @Test
  void everyPiece_isInAProgram() throws IOException {
    List<String> programs = new ArrayList<>();
    for (String folder : PROGRAMS) {
      try (Stream<Path> files = Files.walk(Path.of(folder))) {
        for (Path file : files.filter(file -> file.toString().endsWith(".java")).toList()) {
          programs.add(withoutSpace(Files.readString(file)));
        }
      }
    }
    List<String> pieces = new ArrayList<>();
    for (Path page : CommandTable.pages()) {
      PIECE.matcher(Files.readString(page)).results().forEach(piece -> pieces.add(piece.group(1)));
    }
    assertThat(pieces)
        .as("in no program of %s", PROGRAMS)
        .isNotEmpty()
        .allMatch(
            piece -> programs.stream().anyMatch(program -> program.contains(withoutSpace(piece))));
  }

  private static String withoutSpace(String java) {
    return COMMENT_OR_SPACE.matcher(java).replaceAll("");
  }
}
