package io.github.syncbn4j.device;

/** A device has not as much memory as was asked for. Nothing was begun, and nothing has failed. */
public class DeviceMemoryException extends DeviceException {
  private static final long serialVersionUID = 1L;

  public DeviceMemoryException(String device, String call, int code, String text) {
    super(device, call, code, text);
  }
}
