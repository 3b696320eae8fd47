package io.github.syncbn4j.build;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What a newcomer reads whose machine lacks a tool. */
class RequireToolsTest {
  private static final List<Path> BIN = List.of(Path.of("/bin"), Path.of("/usr/bin"));

  @TempDir private Path tools;

  @Test
  void eachMissingTool_isOneLineWithItsPackage() throws Exception {
    for (String shellUses : List.of("sort", "head", "sed", "printf")) {
      link(shellUses);
    }
    Process process = run("/nowhere", "3.6.3");
    try (Stream<String> lines = process.errorReader().lines()) {
      assertThat(lines)
          .containsExactly(
              "syncbn4j: no Java compiler in /nowhere: install the Debian package"
                  + " openjdk-17-jdk-headless",
              "syncbn4j: Maven is version 3.6.3, needed is 3.8 or newer: install the Debian package"
                  + " maven",
              "syncbn4j: no g++ on the PATH: install the Debian package g++",
              "syncbn4j: no cmake on the PATH: install the Debian package cmake");
    }
    assertThat(process.waitFor()).isEqualTo(1);
  }

  private Process run(String... arguments) throws IOException {
    ProcessBuilder builder = new ProcessBuilder("/bin/sh", "scripts/require-tools");
    builder.command().addAll(List.of(arguments));
    builder.environment().put("PATH", tools.toString());
    return builder.start();
  }

  private void link(String name) throws IOException {
    for (Path folder : BIN) {
      Path program = folder.resolve(name);
      if (Files.isExecutable(program)) {
        Files.createSymbolicLink(tools.resolve(name), program);
        return;
      }
    }
    throw new IOException("no " + name);
  }
}
