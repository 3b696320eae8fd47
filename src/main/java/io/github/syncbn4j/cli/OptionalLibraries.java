package io.github.syncbn4j.cli;

import java.util.Map;

/** Libraries that only some commands need, and that may not be on the class path. */
final class OptionalLibraries {
  private OptionalLibraries() {}

  /**
   * @param classes by the library's coordinates, a class of each
   */
  static void require(String command, Map<String, String> classes) {
    classes.forEach(
        (name, type) -> {
          try {
            Class.forName(type, false, OptionalLibraries.class.getClassLoader());
          } catch (ClassNotFoundException e) {
            throw new NoClassDefFoundError(command + " needs " + name + " on the class path");
          }
        });
  }
}
