// libcuda.so.1: the driver functions that the host program calls itself.
#include <cuda.h>
#include <stdio.h>

#include "sim.h"

using namespace syncbn::sim;

namespace {

template <typename Body>
CUresult driver_api(const char *name, Body body) {
  static Site &here = site(name);
  const int injected = enter(here);
  return injected ? static_cast<CUresult>(injected) : body();
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned int flags) {
  return driver_api("cuInit", [&] {
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (!device(0)) return CUDA_ERROR_NO_DEVICE;
    initialize_driver();
    return CUDA_SUCCESS;
  });
}

CUresult cuDriverGetVersion(int *version) {
  return driver_api("cuDriverGetVersion", [&] {
    if (!version) return CUDA_ERROR_INVALID_VALUE;
    *version = settings().driver_version;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGet(CUdevice *found, int ordinal) {
  return driver_api("cuDeviceGet", [&] {
    if (!driver_initialized()) return CUDA_ERROR_NOT_INITIALIZED;
    if (!found) return CUDA_ERROR_INVALID_VALUE;
    if (!device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *found = ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetCount(int *count) {
  return driver_api("cuDeviceGetCount", [&] {
    if (!driver_initialized()) return CUDA_ERROR_NOT_INITIALIZED;
    if (!count) return CUDA_ERROR_INVALID_VALUE;
    *count = settings().devices;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetName(char *name, int length, CUdevice index) {
  return driver_api("cuDeviceGetName", [&] {
    if (!driver_initialized()) return CUDA_ERROR_NOT_INITIALIZED;
    if (!name || length < 1) return CUDA_ERROR_INVALID_VALUE;
    if (!device(index)) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, static_cast<size_t>(length), "Simulated GPU");
    return CUDA_SUCCESS;
  });
}

// The driver's codes are the runtime's.
CUresult cuGetErrorString(CUresult error, const char **text) {
  return driver_api("cuGetErrorString", [&] {
    if (!text) return CUDA_ERROR_INVALID_VALUE;
    *text = cudaGetErrorString(static_cast<cudaError_t>(error));
    return CUDA_SUCCESS;
  });
}
}
