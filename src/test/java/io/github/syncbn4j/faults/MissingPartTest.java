package io.github.syncbn4j.faults;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * What a group says where a jar is missing, or a native library is damaged, of another version or
 * for another machine: one sentence with what to do. Native code is loaded once a process, so each
 * is a process of its own.
 */
@Timeout(120)
class MissingPartTest {
  private static final String NO_CPU =
      "DeviceUnavailableException: the CPU cannot be used: the CPU kernels cannot be loaded: ";
  private static final String NO_GPU = "DeviceUnavailableException: no GPU can be used: ";
  private static final Path CLASSES = Path.of("target", "classes");
  private static final Path NATIVES = Path.of("io", "github", "syncbn4j", "device", "linux-x86_64");
  private static final String CACHE_DIR = "-Dorg.bytedeco.javacpp.cachedir=";
  private static final String CPU = "libsyncbn_cpu.so";
  private static final String CPU_BINDING = "libjnisyncbn_cpu.so";

  /** The main jar's content. */
  @TempDir private static Path main;

  @TempDir private Path folder;

  /** What is in the native jars, by path. */
  private final Map<String, byte[]> natives = new HashMap<>();

  @BeforeEach
  void copyClasses() throws IOException {
    if (Files.exists(main.resolve("io"))) {
      return;
    }
    try (Stream<Path> files = Files.walk(CLASSES)) {
      for (Path file : files.filter(file -> file.toString().endsWith(".class")).toList()) {
        Path copy = main.resolve(CLASSES.relativize(file));
        Files.createDirectories(copy.getParent());
        Files.copy(file, copy);
      }
    }
  }

  @Test
  void noJarOfTheCpuKernels() throws Exception {
    assertThat(open("cpu"))
        .startsWith(NO_CPU)
        .endsWith(
            " -> add the dependency io.github.syncbn4j:syncbn4j with the classifier linux-x86_64");
  }

  @Test
  void noJarOfTheGpuKernels() throws Exception {
    copy(CPU, CPU_BINDING);
    assertThat(open("0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: ")
        .contains(
            " -> add the dependency io.github.syncbn4j:syncbn4j with the classifier linux-x86_64-cuda13; ");
  }

  @Test
  void noGpuKernelsInTheJar() throws Exception {
    copy(CPU, CPU_BINDING, "libjnisyncbn_cuda.so");
    assertThat(open("0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: ")
        .contains(" -> take a released jar, or build where CUDA's nvcc 13 is on the PATH");
  }

  @Test
  void noJarOfCudasBindings() throws Exception {
    assertThat(
            open(
                CACHE_DIR + folder.resolve("cache"),
                jar -> !jar.matches("cuda-.*-linux-x86_64.jar"),
                "0"))
        .endsWith(" -> add the dependency org.bytedeco:cuda with the classifier linux-x86_64");
  }

  @Test
  void anotherMachine() throws Exception {
    String platform = "-Dorg.bytedeco.javacpp.platform=linux-arm64";
    String reason =
        "this machine is linux-arm64 -> use Linux on x86-64: there is nothing for others";
    assertThat(open(platform, jar -> true, "cpu")).isEqualTo(NO_CPU + reason);
    assertThat(open(platform, jar -> true, "0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: " + reason);
  }

  @Test
  void cacheThatCannotBeWritten() throws Exception {
    copy(CPU, CPU_BINDING);
    String nowhere = CACHE_DIR + "/dev/null -Djava.io.tmpdir=/dev/null -Duser.home=/dev/null";
    assertThat(open(nowhere, jar -> true, "cpu"))
        .startsWith(NO_CPU)
        .endsWith(" -> set -Dorg.bytedeco.javacpp.cachedir to a folder that can be written");
  }

  @Test
  void olderCLibrary() throws Exception {
    copy(CPU_BINDING);
    String library =
        new String(Files.readAllBytes(CLASSES.resolve(NATIVES).resolve(CPU)), ISO_8859_1);
    write(CPU, library.replaceAll("GLIBC_2\\.(\\d\\d)\0", "GLIBC_9.$1\0").getBytes(ISO_8859_1));
    assertThat(open("cpu"))
        .startsWith(NO_CPU)
        .contains("version `GLIBC_9.")
        .endsWith(" -> use a system with glibc 2.35 or newer, as Ubuntu 22.04 or Debian 12");
  }

  @Test
  void librariesOfSeveralVersions() throws Exception {
    copy(CPU_BINDING);
    write(CPU, Files.readAllBytes(CLASSES.resolve(NATIVES).resolve("libsyncbn_bench.so")));
    assertThat(open("cpu"))
        .startsWith(NO_CPU)
        .contains("undefined symbol: syncbn_cpu_")
        .contains(" -> use one version of all of this library's jars, and remove JavaCPP's cache");
  }

  @Test
  void libraryThatIsCutOff() throws Exception {
    copy(CPU_BINDING);
    write(CPU, new byte[10]);
    assertThat(open("cpu"))
        .startsWith(NO_CPU)
        .contains("file too short -> use one version of all of this library's jars");
  }

  private void copy(String... libraries) throws IOException {
    for (String library : libraries) {
      write(library, Files.readAllBytes(CLASSES.resolve(NATIVES).resolve(library)));
    }
  }

  private void write(String library, byte[] content) throws IOException {
    natives.put(NATIVES.resolve(library).toString(), content);
  }

  private String open(String device) throws Exception {
    return open(CACHE_DIR + folder.resolve("cache"), jar -> true, device);
  }

  /**
   * @param options of the JVM, between blanks
   * @param jars that there are, by their names
   */
  private String open(String options, Predicate<String> jars, String device) throws Exception {
    Path jar = folder.resolve("natives.jar");
    try (ZipOutputStream out = new ZipOutputStream(Files.newOutputStream(jar))) {
      for (Map.Entry<String, byte[]> file : natives.entrySet()) {
        out.putNextEntry(new ZipEntry(file.getKey()));
        out.write(file.getValue());
      }
    }
    Stream<String> others =
        Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
            .filter(entry -> !Path.of(entry).endsWith(CLASSES))
            .filter(entry -> jars.test(Path.of(entry).getFileName().toString()));
    String classPath =
        Stream.concat(Stream.of(main.toString(), jar.toString()), others)
            .collect(Collectors.joining(File.pathSeparator));
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classPath));
    command.addAll(List.of(options.split(" ")));
    command.addAll(List.of(OpenGroup.class.getName(), device));
    Process process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    String said = new String(process.getInputStream().readAllBytes()).strip();
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).as("the process ends").isTrue();
    assertThat(process.exitValue()).as(said).isZero();
    return said;
  }
}
