package io.github.syncbn4j.state;

import java.io.IOException;
import java.nio.file.Path;

/**
 * A file that is not valid safetensors, or is beyond what is read. The message names the value and
 * the limit.
 */
public final class SafetensorsException extends IOException {
  private static final long serialVersionUID = 1L;

  private final String problem;

  SafetensorsException(Path file, String problem, Throwable cause) {
    super(file + ": " + problem, cause);
    this.problem = problem;
  }

  /** What is wrong, without the file's name. */
  public String problem() {
    return problem;
  }
}
