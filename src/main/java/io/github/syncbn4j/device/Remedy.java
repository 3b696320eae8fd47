package io.github.syncbn4j.device;

import java.util.List;

/**
 * What to do about what the loader, CUDA or NCCL says. Of many a trouble their texts are the only
 * trace.
 */
public final class Remedy {
  private static final String DRIVER = "install NVIDIA's driver 580 or newer";
  private static final String NCCL =
      "install libnccl2 2.27 or newer for CUDA 13 from NVIDIA's repository, or put the folder of its libnccl.so.2 on LD_LIBRARY_PATH";
  private static final String VISIBLE =
      "nvidia-smi has to list a GPU, and neither CUDA_VISIBLE_DEVICES nor a container may hide it";
  private static final String ONE_VERSION =
      "use one version of all of this library's jars, and remove JavaCPP's cache, ~/.javacpp/cache";
  private static final String OTHER_CUDART =
      "take the other libcudart.so.13 off LD_LIBRARY_PATH and LD_PRELOAD: the right one is in the jar";
  private static final String DAMAGED =
      "the file is damaged: remove JavaCPP's cache, ~/.javacpp/cache; if that does not help, download the jar again";
  private static final String XID =
      "sudo dmesg | grep -i xid tells what the driver saw of the GPU; report it with this output";

  private record Known(String text, String remedy) {}

  /** The first whose text is in the trouble's is taken. */
  private static final List<Known> KNOWN =
      List.of(
          new Known(
              " MB left",
              "make room there, or set -Dorg.bytedeco.javacpp.cachedir to a folder that has it"),
          missing("jnisyncbn_cpu", "io.github.syncbn4j:syncbn4j", "linux-x86_64"),
          missing("jnisyncbn_cuda", "io.github.syncbn4j:syncbn4j", "linux-x86_64-cuda13"),
          missing("jnicudart", "org.bytedeco:cuda", "linux-x86_64"),
          new Known("this machine is ", "use Linux on x86-64: there is nothing for others"),
          new Known(
              "libcuda.so.1: cannot open",
              DRIVER + "; start a container with its GPUs, as docker run --gpus all does"),
          new Known(
              "libcuda.so.1: ",
              "that file is not NVIDIA's driver: take its folder off LD_LIBRARY_PATH, or install the driver anew"),
          new Known("libnccl.so.2: cannot open", NCCL),
          new Known(
              "libnccl.so.2: ",
              "that file is not NCCL: take its folder off LD_LIBRARY_PATH, or install libnccl2 anew"),
          new Known(
              "libcudart.so.13: cannot open",
              "take the jar linux-x86_64-cuda13 whole: libcudart.so.13 is in it"),
          new Known("libcudart.so.13: ", OTHER_CUDART),
          new Known(
              "libsyncbn_cuda.so: cannot open",
              "take a released jar, or build where CUDA's nvcc 13 is on the PATH"),
          new Known(
              "libsyncbn_cpu.so: cannot open",
              "add the dependency io.github.syncbn4j:syncbn4j with the classifier linux-x86_64"),
          new Known(
              "cpu:0 computes wrong numbers",
              "test the machine's memory, as memtest86+ does; if that is sound, report it with this output"),
          new Known(
              "computes wrong numbers",
              "use another GPU: nvidia-smi -q -d ECC and dcgmi diag -r 3 tell what is wrong with it"),
          new Known(
              "version `GLIBC",
              "use a system with glibc 2.35 or newer, as Ubuntu 22.04 or Debian 12"),
          new Known("undefined symbol", ONE_VERSION),
          new Known("ABI version", ONE_VERSION),
          new Known(
              "failed to map segment",
              "set -Dorg.bytedeco.javacpp.cachedir to a folder that is not mounted noexec"),
          new Known(
              "Could not create the cache",
              "set -Dorg.bytedeco.javacpp.cachedir to a folder that can be written"),
          new Known("file too short", DAMAGED),
          new Known("invalid ELF header", DAMAGED),
          new Known("libnccl.so.2 is version", NCCL),
          new Known("libcudart.so.13 is version", OTHER_CUDART),
          new Known("the driver supports CUDA", DRIVER),
          new Known("cudaErrorInsufficientDriver", DRIVER),
          new Known("cudaErrorUnsupportedPtxVersion", DRIVER),
          new Known("sees no GPU", VISIBLE),
          new Known("cudaErrorNoDevice", VISIBLE),
          new Known(
              "cudaErrorNoKernelImageForDevice",
              "build for this GPU with -Prelease or SYNCBN_CUDA_ARCHITECTURES; below compute capability 8.0 none can be used"),
          new Known(
              "cudaErrorDevicesUnavailable",
              "end the process that has the GPU to itself, or nvidia-smi -c DEFAULT"),
          new Known(
              "cudaErrorSystemNotReady",
              "start nvidia-fabricmanager, of the driver's version: GPUs behind NVSwitch need it"),
          new Known(
              "cudaErrorSystemDriverMismatch",
              "restart the machine: the kernel still has another driver than libcuda.so.1"),
          new Known(
              "cudaErrorCompatNotSupportedOnDevice",
              "take CUDA's compat folder off LD_LIBRARY_PATH: this GPU needs the driver's own libcuda.so.1"),
          new Known(
              "cudaErrorMemoryAllocation",
              "nvidia-smi names the processes that have the GPU's memory"),
          new Known("cudaErrorLaunchFailure", XID),
          new Known("cudaErrorIllegalAddress", XID),
          new Known("cudaErrorUnknown", "sudo modprobe nvidia-uvm, or restart the machine"),
          new Known(
              "unhandled system error",
              "NCCL_DEBUG=WARN says more; a container needs shared memory, as docker run --shm-size=1g"));

  private Remedy() {}

  private static Known missing(String library, String artifact, String classifier) {
    return new Known(
        "Could not find " + library,
        "add the dependency %s with the classifier %s".formatted(artifact, classifier));
  }

  /** As in {@code trouble -> what to do}; the trouble alone where that is not known. */
  public static String with(String trouble) {
    return KNOWN.stream()
        .filter(known -> trouble.contains(known.text()))
        .findFirst()
        .map(known -> trouble + " -> " + known.remedy())
        .orElse(trouble);
  }
}
