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
    if (!Files.isDirectory(devices)) {
      return false;
    }
    try (DirectoryStream<Path> all = Files.newDirectoryStream(devices)) {
      for (Path device : all) {
        if (Files.readString(device.resolve("vendor")).strip().equals(NVIDIA)
            && Files.readString(device.resolve("class")).startsWith(DISPLAY)) {
          return true;
        }
      }
    }
    return false;
  }
}
