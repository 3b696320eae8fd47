package io.github.syncbn4j.cli;

/**
 * A recording that is damaged, incomplete or outside what is supported. The message names the key
 * or tensor and its value.
 */
final class RefusedException extends Exception {
  private static final long serialVersionUID = 1L;

  RefusedException(String reason) {
    super(reason);
  }

  RefusedException(String reason, Throwable cause) {
    super(reason, cause);
  }
}
