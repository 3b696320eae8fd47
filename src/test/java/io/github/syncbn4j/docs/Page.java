package io.github.syncbn4j.docs;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * A page of documentation, and what in it is a command.
 *
 * @param blocks the indented blocks, and the fenced ones that name no language or the shell
 * @param prose all other text
 */
record Page(List<Block> blocks, String prose) {
  /**
   * @param introduction the last line of text before it
   */
  record Block(String introduction, List<String> lines) {
    /** Its lines without comments, if the first of them is a command. */
    List<String> commands() {
      List<String> commands =
          lines.stream().map(Page::withoutComment).filter(line -> !line.isEmpty()).toList();
      return commands.isEmpty() || !isCommand(commands.get(0)) ? List.of() : commands;
    }
  }

  private static final String INDENT = "    ";
  private static final Pattern FENCE = Pattern.compile("```(|sh|bash|shell|console)");
  private static final Pattern SPAN = Pattern.compile("`([^`]+)`");
  private static final Pattern COMMENT = Pattern.compile("(^|\\s+)#.*");
  private static final Pattern COMMAND =
      Pattern.compile(
          "([A-Z][A-Z_]*=\\S+ )*((\\.|docs|scripts|target/native|DIR|/tmp/bundle)/\\S+|gpu-(bundle|verify)|mvn"
              + "|java|javac|torchrun|mpirun|srun|sbatch|sudo|apt|apt-get|export|cd|cp|rm|git|docker"
              + "|cmake|ctest|clang-format|pip|python3?|curl|wget|for|bash|sh)( .*)?");

  static Page of(Path file) throws IOException {
    List<Block> blocks = new ArrayList<>();
    StringBuilder prose = new StringBuilder();
    List<String> block = null;
    boolean fenced = false;
    String text = "";
    String before = "";
    for (String line : Files.readAllLines(file)) {
      if (fenced) {
        fenced = !line.startsWith("```");
        if (fenced && block != null) {
          block.add(line.strip());
        }
      } else if (line.startsWith("```")) {
        fenced = true;
        block = FENCE.matcher(line.strip()).matches() ? begin(blocks, text) : null;
      } else if (line.startsWith(INDENT) && (before.isBlank() || before.startsWith(INDENT))) {
        if (before.isBlank()) {
          block = begin(blocks, text);
        }
        block.add(line.substring(INDENT.length()).stripTrailing());
      } else {
        prose.append(line).append('\n');
        text = line.isBlank() ? text : line;
      }
      before = line;
    }
    return new Page(List.copyOf(blocks), prose.toString());
  }

  private static List<String> begin(List<Block> blocks, String introduction) {
    List<String> lines = new ArrayList<>();
    blocks.add(new Block(introduction, lines));
    return lines;
  }

  /** Every command: those of blocks, and those in the text that have an argument. */
  List<String> commands() {
    Stream<String> spans =
        SPAN.matcher(prose)
            .results()
            .map((MatchResult span) -> withoutComment(span.group(1)))
            .filter(span -> span.contains(" ") && isCommand(span));
    return Stream.concat(blocks.stream().flatMap(block -> block.commands().stream()), spans)
        .distinct()
        .toList();
  }

  private static boolean isCommand(String line) {
    return COMMAND.matcher(line).matches();
  }

  private static String withoutComment(String line) {
    return COMMENT.matcher(line.replaceAll("\\s+", " ")).replaceFirst("").strip();
  }
}
