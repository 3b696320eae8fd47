package io.github.syncbn4j.job;

/** The ranks of a job did not come together. The message names those that are missing. */
public class JobException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  JobException(String message, Throwable cause) {
    super(message, cause);
  }
}
