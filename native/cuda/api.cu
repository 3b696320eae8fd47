// What does the library say about itself, and what must the caller allocate?
#include "entry.cuh"

#ifndef SYNCBN_VERSION
#error "SYNCBN_VERSION is the version that build_info reports"
#endif

namespace syncbn {

Error &last_error() {
  thread_local Error error = {};
  return error;
}

}  // namespace syncbn

#define SYNCBN_TEXT_OF(...) #__VA_ARGS__
#define SYNCBN_TEXT(...) SYNCBN_TEXT_OF(__VA_ARGS__)

int32_t syncbn_cuda_abi_version(void) { return SYNCBN_ABI_VERSION; }

const char *syncbn_cuda_build_info(void) {
#ifdef __CUDACC__
  return "syncbn_cuda " SYNCBN_VERSION ", nvcc " SYNCBN_TEXT(__CUDACC_VER_MAJOR__) "." SYNCBN_TEXT(
      __CUDACC_VER_MINOR__) ", architectures " SYNCBN_TEXT(__CUDA_ARCH_LIST__) ", g++ " __VERSION__;
#else
  return "syncbn_cuda " SYNCBN_VERSION ", simulated device, g++ " __VERSION__;
#endif
}

const char *syncbn_cuda_last_error(void) { return syncbn::last_error().text; }

int64_t syncbn_cuda_workspace_bytes(int64_t channels) {
  if (syncbn::check_channels(channels, syncbn::last_error()) != SYNCBN_OK) return 0;
  return syncbn::workspace_bytes(channels);
}
