package io.github.syncbn4j.cli;

import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;

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
    if (e instanceof FileSystemException file && file.getReason() == null) {
      return one(file.getFile() + ": " + reason(file));
    }
    return one(e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage());
  }

  /** Of those whose message is the file alone. */
  private static String reason(FileSystemException e) {
    if (e instanceof NoSuchFileException) {
      return "no such file or folder";
    }
    if (e instanceof AccessDeniedException) {
      return "no permission";
    }
    // This is what making a folder throws.
    return e instanceof FileAlreadyExistsException
        ? "is there already, and is no folder"
        : e.getClass().getSimpleName();
  }
}
