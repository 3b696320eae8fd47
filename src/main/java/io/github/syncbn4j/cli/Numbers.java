package io.github.syncbn4j.cli;

import java.util.function.Function;
import picocli.CommandLine;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/**
 * Options' values as numbers; picocli's own words for what is none are the names of Java's types.
 */
final class Numbers {
  private Numbers() {}

  /** For all commands that it has. */
  static CommandLine registerIn(CommandLine commandLine) {
    return commandLine
        .registerConverter(int.class, or("a whole number below 2^31", Integer::valueOf))
        .registerConverter(long.class, or("a whole number below 2^63", Long::valueOf))
        .registerConverter(Long.class, or("a whole number below 2^63", Long::valueOf))
        .registerConverter(double.class, or("a number", Double::valueOf));
  }

  private static <N> ITypeConverter<N> or(String wanted, Function<String, N> parse) {
    return value -> {
      try {
        return parse.apply(value);
      } catch (NumberFormatException e) {
        throw new TypeConversionException("expected %s but was '%s'".formatted(wanted, value));
      }
    };
  }
}
