package io.github.syncbn4j.state;

import java.io.IOException;
import java.nio.file.Path;

/** A file that does not hold the state that is asked of it. The message names the file. */
public final class StateException extends IOException {
  private static final long serialVersionUID = 1L;

  public StateException(Path file, String problem) {
    this(file, problem, null);
  }

  public StateException(Path file, String problem, Throwable cause) {
    super(file + ": " + problem, cause);
  }
}
