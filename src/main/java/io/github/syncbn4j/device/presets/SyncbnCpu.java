package io.github.syncbn4j.device.presets;

import org.bytedeco.javacpp.annotation.NoException;
import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/** What JavaCPP makes of syncbn.h for libsyncbn_cpu.so: the argument structs and the functions. */
@Properties(
    value =
        @Platform(
            value = "linux-x86_64",
            include = "syncbn.h",
            link = "syncbn_cpu",
            library = "jnisyncbn_cpu"),
    target = "io.github.syncbn4j.device.natives",
    global = "io.github.syncbn4j.device.natives.CpuKernels")
@NoException
public class SyncbnCpu implements InfoMapper {
  @Override
  public void map(InfoMap infoMap) {
    Abi.skipFunctions(infoMap, "syncbn_cuda_");
  }
}
