package io.github.syncbn4j.faults;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * What a group says on a node that cannot carry it: no GPU or too few, libraries that are missing,
 * too old, or fail when they are asked. CUDA and NCCL are looked at once a process, so each node is
 * a process of its own.
 */
@Tag("sim")
@Timeout(120)
class UnusableNodeTest {
  private static final String UNAVAILABLE = "DeviceUnavailableException: ";
  private static final String NO_GPU = UNAVAILABLE + "no GPU can be used: ";
  private static final String NO_NCCL = UNAVAILABLE + "several GPUs cannot be used together: ";

  private static final String DRIVER = " -> install NVIDIA's driver 580 or newer";
  private static final String NCCL =
      " -> install libnccl2 2.27 or newer for CUDA 13 from NVIDIA's repository, or put the folder of its libnccl.so.2 on LD_LIBRARY_PATH";

  /** The simulated node has none either where more are asked for than it allows. */
  @ParameterizedTest
  @ValueSource(strings = {"0", "33"})
  void nodeWithoutGpu(String devices) throws Exception {
    assertThat(open(Map.of("SYNCBN_SIM_DEVICES", devices)))
        .isEqualTo(
            NO_GPU
                + "cudaGetDeviceCount failed with cudaErrorNoDevice (no CUDA-capable device is detected)"
                + " -> nvidia-smi has to list a GPU, and neither CUDA_VISIBLE_DEVICES nor a container may hide it");
  }

  @Test
  void driverThatIsTooOld() throws Exception {
    assertThat(open(Map.of("SYNCBN_SIM_DRIVER_VERSION", "12080")))
        .isEqualTo(
            NO_GPU
                + "cudaDriverGetVersion: the driver supports CUDA 12.8, needed is 13.0 or newer"
                + DRIVER
                + "; "
                + "cudaGetDeviceCount failed with cudaErrorInsufficientDriver "
                + "(CUDA driver version is insufficient for CUDA runtime version)"
                + DRIVER);
  }

  @Test
  void runtimeThatIsTooOld() throws Exception {
    assertThat(open(Map.of("SYNCBN_SIM_RUNTIME_VERSION", "12090")))
        .isEqualTo(
            NO_GPU
                + "cudaRuntimeGetVersion: libcudart.so.13 is version 12.9, needed is 13.0 or newer"
                + " -> take the other libcudart.so.13 off LD_LIBRARY_PATH and LD_PRELOAD: the right one is in the jar");
  }

  @Test
  void ncclThatIsTooOld() throws Exception {
    Map<String, String> old = Map.of("SYNCBN_SIM_NCCL_VERSION", "22605");
    assertThat(open(old))
        .isEqualTo(
            NO_NCCL
                + "ncclGetVersion: libnccl.so.2 is version 2.26.5, needed is 2.27.0 or newer"
                + NCCL);
    assertThat(open(old, "1")).as("one GPU needs no NCCL").isEqualTo("open");
  }

  @Test
  void callsThatFailWhenTheNodeIsLookedAt() throws Exception {
    String texts = "(unknown error) -> sudo modprobe nvidia-uvm, or restart the machine";
    for (String call :
        List.of("cudaRuntimeGetVersion", "cudaDriverGetVersion", "cudaGetDeviceCount")) {
      assertThat(open(Map.of("SYNCBN_SIM_FAULTS", call + ":1:999")))
          .isEqualTo(NO_GPU + call + " failed with cudaErrorUnknown " + texts);
    }
    assertThat(open(Map.of("SYNCBN_SIM_FAULTS", "ncclGetVersion:1:2")))
        .isEqualTo(
            NO_NCCL
                + "ncclGetVersion failed with 2: unhandled system error"
                + " -> NCCL_DEBUG=WARN says more; a container needs shared memory, as docker run --shm-size=1g");
  }

  @ParameterizedTest
  @CsvSource({
    "46, cudaErrorDevicesUnavailable, end the process that has the GPU to itself",
    "802, cudaErrorSystemNotReady, start nvidia-fabricmanager",
    "803, cudaErrorSystemDriverMismatch, restart the machine",
    "804, cudaErrorCompatNotSupportedOnDevice, take CUDA's compat folder off LD_LIBRARY_PATH"
  })
  void driverThatDoesNotServe(int code, String name, String mend) throws Exception {
    assertThat(open(Map.of("SYNCBN_SIM_FAULTS", "cudaGetDeviceCount:1:" + code)))
        .startsWith(NO_GPU + "cudaGetDeviceCount failed with " + name)
        .contains(" -> " + mend);
  }

  @Test
  void nodeWithoutDriver(@TempDir Path libraries) throws Exception {
    assertThat(openWith(libraries, Map.of(), "libcudart.so.13", "libnccl.so.2"))
        .startsWith(NO_GPU + "the CUDA runtime cannot be loaded: ")
        .endsWith(
            "libcuda.so.1: cannot open shared object file: No such file or directory"
                + DRIVER
                + "; start a container with its GPUs, as docker run --gpus all does");
  }

  @Test
  void nodeWithoutNccl(@TempDir Path libraries) throws Exception {
    assertThat(openWith(libraries, Map.of(), "libcuda.so.1", "libcudart.so.13"))
        .startsWith(NO_NCCL + "NCCL cannot be loaded: ")
        .endsWith("libnccl.so.2: cannot open shared object file: No such file or directory" + NCCL);
  }

  @Test
  void somethingElseUnderTheNameOfNccl(@TempDir Path libraries) throws Exception {
    Files.writeString(libraries.resolve("libnccl.so.2"), "no library");
    Map<String, String> path = Map.of("LD_LIBRARY_PATH", libraries.toString());
    assertThat(openWith(libraries, path, "libcuda.so.1", "libcudart.so.13"))
        .startsWith(NO_NCCL + "NCCL cannot be loaded: ")
        .endsWith(
            "libnccl.so.2: file too short -> that file is not NCCL: take its folder off LD_LIBRARY_PATH, or install libnccl2 anew");
  }

  /**
   * With these stand-ins alone, and our kernels. JavaCPP keeps links to libraries that it has found
   * before, so it gets a cache of its own.
   */
  private static String openWith(Path libraries, Map<String, String> variables, String... standIns)
      throws Exception {
    for (String missing : List.of("libcuda.so.1", "libnccl.so.2")) {
      Assumptions.assumeTrue(
          Arrays.asList(standIns).contains(missing) || !isInstalled(missing),
          "this machine has a real " + missing + ", which cannot be taken away");
    }
    Path node = simulatedNode();
    List<String> preloaded = new ArrayList<>();
    for (String name : standIns) {
      preloaded.add(
          Files.createSymbolicLink(libraries.resolve(name), node.resolve(name)).toString());
    }
    Files.createSymbolicLink(
        libraries.resolve("libsyncbn_cuda.so"), node.resolve("libsyncbn_cuda.so"));
    Map<String, String> environment = new HashMap<>(variables);
    environment.put("LD_PRELOAD", String.join(":", preloaded));
    return open(
        environment,
        List.of("-Dorg.bytedeco.javacpp.cachedir=" + libraries.resolve("cache")),
        libraries,
        "0",
        "1");
  }

  private static boolean isInstalled(String library) throws IOException, InterruptedException {
    Process known = new ProcessBuilder("/sbin/ldconfig", "-p").start();
    String all = new String(known.getInputStream().readAllBytes());
    known.waitFor();
    return all.contains(library);
  }

  private static String open(Map<String, String> node, String... gpus) throws Exception {
    return open(
        node, List.of(), simulatedNode(), gpus.length == 0 ? new String[] {"0", "1"} : gpus);
  }

  private static String open(
      Map<String, String> environment, List<String> options, Path libraries, String... gpus)
      throws Exception {
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-Dorg.bytedeco.javacpp.pathsFirst=true",
                "-Djava.library.path=" + libraries));
    command.addAll(options);
    command.addAll(
        List.of("-cp", System.getProperty("java.class.path"), OpenGroup.class.getName()));
    command.addAll(List.of(gpus));
    ProcessBuilder builder = new ProcessBuilder(command);
    builder.environment().putAll(environment);
    Process process = builder.redirectError(ProcessBuilder.Redirect.DISCARD).start();
    String said = new String(process.getInputStream().readAllBytes()).strip();
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).as("the process ends").isTrue();
    assertThat(process.exitValue()).as(said).isZero();
    return said;
  }

  private static Path simulatedNode() {
    return Path.of(System.getProperty("syncbn.sim.dir"));
  }
}
