package io.github.syncbn4j.device;

/**
 * The replicas of a group did not do one step together: one was missing or late, or they called
 * different things. The group is unusable afterwards, and can be closed.
 */
public class CollectiveException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public CollectiveException(String message) {
    super(message);
  }

  public CollectiveException(String message, Throwable cause) {
    super(message, cause);
  }
}
