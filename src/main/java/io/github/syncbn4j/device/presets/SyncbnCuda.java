package io.github.syncbn4j.device.presets;

import org.bytedeco.javacpp.annotation.NoException;
import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/**
 * What JavaCPP makes of syncbn.h for libsyncbn_cuda.so: the functions; the structs are those of
 * {@link SyncbnCpu}. The CUDA runtime that lies beside the library is loaded first.
 */
@Properties(
    inherit = SyncbnCpu.class,
    value =
        @Platform(
            value = "linux-x86_64",
            include = "syncbn.h",
            link = "syncbn_cuda",
            preload = "cudart@.13",
            library = "jnisyncbn_cuda"),
    target = "io.github.syncbn4j.device.natives",
    global = "io.github.syncbn4j.device.natives.CudaKernels")
@NoException
public class SyncbnCuda implements InfoMapper {
  @Override
  public void map(InfoMap infoMap) {
    Abi.skipFunctions(infoMap, "syncbn_cpu_");
    Abi.takeFunctions(infoMap, "syncbn_cuda_");
    Abi.skipStructs(infoMap);
  }
}
