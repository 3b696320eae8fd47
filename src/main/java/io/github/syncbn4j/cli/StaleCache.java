package io.github.syncbn4j.cli;

import io.github.syncbn4j.device.natives.CpuKernels;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.javacpp.Loader;

/**
 * Native libraries of ours that JavaCPP has loaded from its cache, and that are not those of the
 * jar. It tells a jar from another by name, and a library by size and date: all builds of a version
 * have the same name and date.
 */
final class StaleCache {
  private static final String FOLDER = "/io/github/syncbn4j/device/linux-x86_64/";

  private StaleCache() {}

  /**
   * @param cache JavaCPP's; libraries from elsewhere are left out
   */
  static List<Path> files(MappedLibraries libraries, Path cache) throws IOException {
    List<Path> stale = new ArrayList<>();
    for (String name :
        List.of("libsyncbn_cpu", "libsyncbn_cuda", "libjnisyncbn_cpu", "libjnisyncbn_cuda")) {
      for (Path file : libraries.files(name)) {
        URL ofJar = Loader.findResource(CpuKernels.class, FOLDER + file.getFileName());
        if (file.startsWith(cache.toRealPath()) && ofJar != null && !holds(file, ofJar)) {
          stale.add(file);
        }
      }
    }
    return stale;
  }

  private static boolean holds(Path file, URL ofJar) throws IOException {
    try (InputStream in = ofJar.openStream()) {
      return Arrays.equals(Files.readAllBytes(file), in.readAllBytes());
    }
  }
}
