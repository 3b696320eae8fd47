package io.github.syncbn4j.faults;

import static java.util.stream.Collectors.joining;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** Shared libraries that define functions of syncbn.h and do nothing in them. */
public final class Stub {
  private static final Path HEADER = Path.of("native", "include", "syncbn.h");

  private Stub() {}

  /**
   * All of the header's functions for one device, of another version.
   *
   * @param device cpu or cuda
   */
  public static byte[] ofVersion(int abi, String device, Path folder) throws Exception {
    String version = "syncbn_" + device + "_abi_version";
    String others =
        Pattern.compile("\\b(syncbn_" + device + "_\\w+)\\(")
            .matcher(Files.readString(HEADER))
            .results()
            .map(match -> match.group(1))
            .distinct()
            .filter(name -> !name.equals(version))
            .map(name -> "void " + name + "() {}")
            .collect(joining("\n"));
    assertThat(others).isNotEmpty();
    Path library = folder.resolve("libsyncbn_" + device + ".so");
    compile("int " + version + "() { return " + abi + "; }\n" + others, library);
    return Files.readAllBytes(library);
  }

  /**
   * To be preloaded: training steps succeed and write no result.
   *
   * @param device as above
   */
  public static Path idle(String device, Path folder) throws Exception {
    Path library = folder.resolve("idle.so");
    String source =
        Stream.of("normalize", "backward_input", "forward", "backward")
            .map(name -> "int syncbn_" + device + "_" + name + "() { return 0; }")
            .collect(joining("\n"));
    compile(source, library);
    return library;
  }

  private static void compile(String source, Path library)
      throws IOException, InterruptedException {
    ProcessBuilder builder =
        new ProcessBuilder("g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", library.toString());
    builder.environment().remove("LD_PRELOAD"); // the simulated node's
    Process compiler = builder.inheritIO().redirectInput(ProcessBuilder.Redirect.PIPE).start();
    try (OutputStream input = compiler.getOutputStream()) {
      input.write(("extern \"C\" {\n" + source + "\n}\n").getBytes(StandardCharsets.UTF_8));
    }
    assertThat(compiler.waitFor()).as("g++ of\n%s", source).isZero();
  }
}
