package io.github.syncbn4j.device;

/**
 * A native call on a device failed. The message names the device, the call, its code and the
 * library's own text.
 */
public class DeviceException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final String device;
  private final String call;
  private final int code;

  public DeviceException(String device, String call, int code, String text) {
    super(device + ": " + call + " failed with " + code + ": " + text);
    this.device = device;
    this.call = call;
    this.code = code;
  }

  /** As {@link Device#id()}. */
  public String device() {
    return device;
  }

  /** The native function. */
  public String call() {
    return call;
  }

  /**
   * What the native function returned: a {@code cudaError_t}, {@code ncclResult_t} or {@code
   * syncbn_status}.
   */
  public int code() {
    return code;
  }
}
