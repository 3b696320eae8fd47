package io.github.syncbn4j.faults;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.cli.Syncbn;
import io.github.syncbn4j.device.natives.CpuKernels;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * What a group says where a jar is missing, or a native library is damaged, of another version or
 * for another machine, or cannot be copied or used where JavaCPP copies it: one sentence with what
 * to do.
 */
@Timeout(120)
class MissingPartTest {
  private static final String NO_CPU =
      "DeviceUnavailableException: the CPU cannot be used: the CPU kernels cannot be loaded: ";
  private static final String NO_GPU = "DeviceUnavailableException: no GPU can be used: ";
  private static final String CPU = "libsyncbn_cpu.so";
  private static final String CPU_BINDING = "libjnisyncbn_cpu.so";
  private static final String CUDA = "libsyncbn_cuda.so";
  private static final String CUDA_BINDING = "libjnisyncbn_cuda.so";
  private static final String CPU_JAR =
      " -> add the dependency io.github.syncbn4j:syncbn4j with the classifier linux-x86_64";
  private static final String ONE_VERSION =
      " -> use one version of all of this library's jars, and remove JavaCPP's cache, ~/.javacpp/cache";
  private static final String DAMAGED =
      " -> the file is damaged: remove JavaCPP's cache, ~/.javacpp/cache; if that does not help, download the jar again";
  private static final String WRITABLE =
      " -> set -Dorg.bytedeco.javacpp.cachedir to a folder that can be written";
  private static final String NOEXEC =
      "failed to map segment from shared object -> set -Dorg.bytedeco.javacpp.cachedir to a folder that is not mounted noexec";

  @TempDir private Path folder;

  private Installation installation;

  @BeforeEach
  void install() {
    installation = new Installation(folder);
  }

  @Test
  void noJarOfTheCpuKernels() throws Exception {
    assertThat(installation.open("cpu")).startsWith(NO_CPU).endsWith(CPU_JAR);
  }

  /** The JVM says of a class that failed before only that it did. */
  @Test
  void noJarOfTheCpuKernels_saysSoForTheGpusToo() throws Exception {
    installation
        .with(CUDA_BINDING)
        .with(CUDA, Stub.ofVersion(CpuKernels.SYNCBN_ABI_VERSION, "cuda", folder));
    installation.variable("NVIDIA_VISIBLE_DEVICES", "all");
    Installation.Run run =
        installation.run(Syncbn.class, "doctor", "--device", "gpu", "--seconds", "0");
    String why =
        "cannot be loaded: Could not find jnisyncbn_cpu in class, module, and library paths.";
    assertThat(run.lines())
        .anyMatch(line -> line.matches("trouble +the CPU kernels " + why + CPU_JAR))
        .anyMatch(line -> line.matches("trouble +the GPU kernels " + why + CPU_JAR))
        .anyMatch(line -> line.matches("auto\\(\\) +takes nothing, .*"))
        .anyMatch(line -> line.matches("variable +NVIDIA_VISIBLE_DEVICES=all"))
        .filteredOn(line -> line.startsWith("trouble "))
        .allMatch(line -> line.contains(" -> "));
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void noJarOfTheGpuKernels() throws Exception {
    assertThat(installation.with(CPU, CPU_BINDING).open("0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: ")
        .contains(CPU_JAR + "-cuda13; ");
  }

  @Test
  void copiesOfTheBenchmark_areInNoJar() throws Exception {
    Installation.Run run = installation.with(CPU, CPU_BINDING).run(Syncbn.class, "bench");
    assertThat(run.errors())
        .containsExactly(
            "syncbn: UnsatisfiedLinkError: no libsyncbn_bench.so on the class path: it is in no jar,"
                + " scripts/syncbn bench builds it");
    assertThat(run.status()).isEqualTo(1);
  }

  @Test
  void noGpuKernelsInTheJar() throws Exception {
    assertThat(installation.with(CPU, CPU_BINDING, CUDA_BINDING).open("0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: ")
        .contains(" -> take a released jar, or build where CUDA's nvcc 13 is on the PATH");
  }

  @Test
  void noCudaRuntimeInTheJar() throws Exception {
    installation.with(CPU, CPU_BINDING, CUDA_BINDING).with(CUDA, simulatedKernels());
    // The machine may have one: the system's loader is not to know where.
    installation.mounted("mount --bind /dev/null /etc/ld.so.cache");
    assertThat(installation.open("0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: ")
        .contains(
            "libcudart.so.13: cannot open shared object file: No such file or directory"
                + " -> take the jar linux-x86_64-cuda13 whole: libcudart.so.13 is in it; ");
  }

  @Test
  void noJarOfCudasBindings() throws Exception {
    assertThat(installation.without("cuda-.*-linux-x86_64.jar").open("0"))
        .endsWith(" -> add the dependency org.bytedeco:cuda with the classifier linux-x86_64");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "libcuda.so.1; that file is not NVIDIA's driver: take its folder off LD_LIBRARY_PATH, or install the driver anew",
        "libcudart.so.13; take the other libcudart.so.13 off LD_LIBRARY_PATH and LD_PRELOAD: the right one is in the jar"
      })
  void somethingElseUnderTheNameOfCudas(String name, String mend) throws Exception {
    Path other = Files.createDirectory(folder.resolve("other"));
    Files.writeString(other.resolve(name), "no library");
    installation.variable("LD_LIBRARY_PATH", other.toString());
    installation.with(CPU, CPU_BINDING, CUDA_BINDING).with(CUDA, simulatedKernels());
    assertThat(installation.open("0"))
        .startsWith(NO_GPU)
        .contains(other.resolve(name) + ": file too short -> " + mend);
  }

  @Test
  void anotherMachine() throws Exception {
    installation.option("-Dorg.bytedeco.javacpp.platform=linux-arm64");
    String reason =
        "this machine is linux-arm64 -> use Linux on x86-64: there is nothing for others";
    assertThat(installation.open("cpu")).isEqualTo(NO_CPU + reason);
    assertThat(installation.open("0"))
        .startsWith(NO_GPU + "the GPU kernels cannot be loaded: " + reason);
  }

  @Test
  void cacheThatCannotBeWritten() throws Exception {
    cacheCannotBeWritten();
    assertThat(installation.with(CPU, CPU_BINDING).open("cpu"))
        .startsWith(NO_CPU)
        .endsWith(WRITABLE);
  }

  @Test
  void cacheThatCannotBeWritten_isNotTheEndOfTheDoctor() throws Exception {
    cacheCannotBeWritten();
    installation.with(CPU, CPU_BINDING);
    Installation.Run run =
        installation.run(Syncbn.class, "doctor", "--device", "cpu", "--seconds", "0");
    assertThat(run.lines())
        .filteredOn(line -> line.startsWith("trouble "))
        .hasSize(2)
        .allMatch(line -> line.contains("Could not create the cache") && line.endsWith(WRITABLE));
    assertThat(run.lines()).last().asString().matches("troubles +2");
    assertThat(run.status()).isEqualTo(1);
  }

  private void cacheCannotBeWritten() {
    for (String name : List.of("org.bytedeco.javacpp.cachedir", "java.io.tmpdir", "user.home")) {
      installation.option("-D" + name + "=/dev/null");
    }
  }

  @Test
  void cacheOnAFullDisk() throws Exception {
    installation.mounted("mount -t tmpfs -o size=300k tmpfs \"$1\"");
    assertThat(installation.with(CPU, CPU_BINDING).open("cpu"))
        .startsWith(NO_CPU)
        .contains("; JavaCPP's cache, " + installation.cache() + ", has 0.")
        .endsWith(
            " MB left -> make room there, or set -Dorg.bytedeco.javacpp.cachedir to a folder that has it");
  }

  @Test
  void cacheThatIsMountedNoexec() throws Exception {
    installation.mounted("mount -t tmpfs -o noexec tmpfs \"$1\"");
    assertThat(installation.with(CPU, CPU_BINDING).open("cpu"))
        .startsWith(NO_CPU + installation.cache())
        .endsWith(".so: " + NOEXEC);
  }

  /** They need the CUDA runtime, as those for GPUs do, which not every build has. */
  private static byte[] simulatedKernels() throws IOException {
    return Files.readAllBytes(Path.of("target", "native", "sim", CUDA));
  }

  /** What the loader says of such a cache, also where nobody may mount one. */
  @Test
  void libraryThatCannotBeMapped() throws Exception {
    installation.with(CPU_BINDING).with(CPU, tooLarge(Installation.built(CPU)));
    assertThat(installation.open("cpu")).startsWith(NO_CPU).endsWith(".so: " + NOEXEC);
  }

  /** The first segment that is loaded then asks for more memory than there are addresses. */
  private static byte[] tooLarge(byte[] library) {
    ByteBuffer elf = ByteBuffer.wrap(library).order(ByteOrder.LITTLE_ENDIAN);
    int header = (int) elf.getLong(32); // e_phoff
    int last = -1;
    for (int i = 0; i < elf.getShort(56); i++, header += 56) { // e_phnum, sizeof(Elf64_Phdr)
      last = elf.getInt(header) == 1 ? header : last; // PT_LOAD
    }
    elf.putLong(last + 40, 1L << 48); // p_memsz
    return library;
  }

  @Test
  void olderCLibrary() throws Exception {
    String library = new String(Installation.built(CPU), ISO_8859_1);
    String newer = library.replaceAll("GLIBC_2\\.(\\d\\d)\0", "GLIBC_9.$1\0");
    installation.with(CPU_BINDING).with(CPU, newer.getBytes(ISO_8859_1));
    assertThat(installation.open("cpu"))
        .startsWith(NO_CPU)
        .contains("version `GLIBC_9.")
        .endsWith(" -> use a system with glibc 2.35 or newer, as Ubuntu 22.04 or Debian 12");
  }

  @Test
  void cpuKernelsOfAnotherVersion() throws Exception {
    installation.with(CPU_BINDING).with(CPU, Stub.ofVersion(99, "cpu", folder));
    assertThat(installation.open("cpu"))
        .isEqualTo(
            "DeviceUnavailableException: the CPU cannot be used: libsyncbn_cpu.so has ABI version 99, needed is "
                + CpuKernels.SYNCBN_ABI_VERSION
                + ONE_VERSION);
  }

  @Test
  void gpuKernelsOfAnotherVersion() throws Exception {
    installation.with(CPU, CPU_BINDING, CUDA_BINDING);
    installation.with(CUDA, Stub.ofVersion(99, "cuda", folder));
    assertThat(installation.open("0"))
        .startsWith(
            NO_GPU
                + "libsyncbn_cuda.so has ABI version 99, needed is "
                + CpuKernels.SYNCBN_ABI_VERSION
                + ONE_VERSION
                + "; ");
  }

  @Test
  void kernelsThatLackFunctions() throws Exception {
    installation.with(CPU_BINDING).with(CPU, Installation.built("libsyncbn_bench.so"));
    assertThat(installation.open("cpu"))
        .startsWith(NO_CPU)
        .contains("undefined symbol: syncbn_cpu_")
        .endsWith(ONE_VERSION);
  }

  @ParameterizedTest
  @CsvSource({"10, file too short", "4096, invalid ELF header"})
  void libraryThatIsDamaged(int bytes, String said) throws Exception {
    installation.with(CPU_BINDING).with(CPU, new byte[bytes]);
    assertThat(installation.open("cpu")).startsWith(NO_CPU).endsWith(said + DAMAGED);
  }

  @Test
  void cpuThatComputesWrongNumbers() throws Exception {
    installation.with(CPU, CPU_BINDING).variable("LD_PRELOAD", Stub.idle("cpu", folder).toString());
    Installation.Run run =
        installation.run(Syncbn.class, "doctor", "--device", "cpu", "--seconds", "0");
    assertThat(run.lines())
        .anyMatch(
            line ->
                line.matches(
                    "trouble +cpu:0 computes wrong numbers: 1 steps, largest error .* of 1e-05 allowed"
                        + " -> test the machine's memory, .*"))
        .last()
        .asString()
        .matches("troubles +1");
    assertThat(run.status()).isEqualTo(1);
  }
}
