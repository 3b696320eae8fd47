package io.github.syncbn4j.device;

import java.util.List;

/** The machine lacks what was asked for. The message holds every reason. */
public class DeviceUnavailableException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final List<String> reasons;

  public DeviceUnavailableException(String what, List<String> reasons, Throwable cause) {
    super(what + ": " + String.join("; ", reasons), cause);
    this.reasons = List.copyOf(reasons);
  }

  public List<String> reasons() {
    return reasons;
  }
}
