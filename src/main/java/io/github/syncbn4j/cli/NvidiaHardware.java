package io.github.syncbn4j.cli;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;

/** Whether the machine has an NVIDIA GPU, whether or not there is a driver for it. */
final class NvidiaHardware {
  private static final String NVIDIA = "0x10de";

  /** VGA and 3D controllers. */
  private static final String DISPLAY = "0x03";

  private NvidiaHardware() {}

  /**
   * @param devices {@code /sys/bus/pci/devices}
   */
  static boolean isIn(Path devices) throws IOException {
    if (!Files.isReadable(devices)) {
      return false;
    }
    try (DirectoryStream<Path> all = Files.newDirectoryStream(devices)) {
      for (Path device : all) {
        if (text(device, "vendor").equals(NVIDIA) && text(device, "class").startsWith(DISPLAY)) {
          return true;
        }
      }
    }
    return false;
  }

  /** Empty where it is not shown, as in some containers, or the device has gone. */
  private static String text(Path device, String file) {
    try {
      return Files.readString(device.resolve(file)).strip();
    } catch (IOException e) {
      return "";
    }
  }
}
