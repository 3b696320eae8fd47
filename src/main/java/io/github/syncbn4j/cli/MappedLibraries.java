package io.github.syncbn4j.cli;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Which files this process has mapped for the native libraries that matter here. */
final class MappedLibraries {
  private static final List<String> NAMES =
      List.of("libsyncbn_cpu", "libsyncbn_cuda", "libcuda", "libcudart", "libnccl");

  /** Address range, permissions, offset, device, inode, then the path, which may hold blanks. */
  private static final Pattern LINE = Pattern.compile("(?:\\S+\\s+){5}(/.*)");

  /** The folder of the stand-ins for driver, runtime and NCCL in the build. */
  private static final Path STAND_INS = Path.of("native", "sim");

  private final Set<Path> files;

  private MappedLibraries(Set<Path> files) {
    this.files = files;
  }

  static MappedLibraries now() throws IOException {
    // Paths are bytes to the kernel; whatever they are, they must not end the listing.
    return of(Files.readAllLines(Path.of("/proc/self/maps"), StandardCharsets.ISO_8859_1));
  }

  static MappedLibraries of(List<String> maps) {
    Set<Path> files = new LinkedHashSet<>();
    for (String line : maps) {
      Matcher matcher = LINE.matcher(line);
      if (matcher.matches()) {
        files.add(Path.of(matcher.group(1)));
      }
    }
    return new MappedLibraries(files);
  }

  /** The libraries that {@link #files} is asked for. */
  static List<String> names() {
    return NAMES;
  }

  /**
   * The files of one library, usually none or one.
   *
   * @param name without suffix, as in {@code libcudart}
   */
  List<Path> files(String name) {
    return files.stream()
        .filter(file -> file.getFileName().toString().startsWith(name + ".so"))
        .toList();
  }

  /** Whether the driver in use is the stand-in of the simulated node. */
  boolean simulated() {
    return files("libcuda").stream().anyMatch(MappedLibraries::isStandIn);
  }

  static boolean isStandIn(Path file) {
    return file.getParent() != null && file.getParent().endsWith(STAND_INS);
  }
}
