// What does a device say about itself, and what do the runtime's errors mean?
#include <stdio.h>

#include <algorithm>

#include "graph.h"
#include "stream.h"

using namespace syncbn::sim;

namespace {

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};

#define ERROR(name, text) \
  { name, #name, text }
const ErrorText kErrors[] = {
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInitializationError, "initialization error"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorCallRequiresNewerDriver, "API call is not supported in the installed CUDA driver"),
    ERROR(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    ERROR(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain."),
    ERROR(cudaErrorOperatingSystem, "OS call failed or operation not supported on this OS"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    ERROR(cudaErrorNotPermitted, "operation not permitted"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorSystemNotReady, "system not yet initialized"),
    ERROR(cudaErrorSystemDriverMismatch, "system has unsupported display driver / cuda driver combination"),
    ERROR(cudaErrorCompatNotSupportedOnDevice, "forward compatibility was attempted on non supported HW"),
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    ERROR(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    ERROR(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    ERROR(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
    ERROR(cudaErrorUnknown, "unknown error"),
};
#undef ERROR

const ErrorText *find_error(cudaError_t error) {
  const auto *it =
      std::find_if(std::begin(kErrors), std::end(kErrors), [&](const ErrorText &e) { return e.error == error; });
  return it == std::end(kErrors) ? nullptr : it;
}

// An H100's, but for the number of multiprocessors. False for an attribute that nobody has needed yet.
bool attribute_value(cudaDeviceAttr attribute, int device, int *value) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      *value = 1024;
      return true;
    case cudaDevAttrMaxBlockDimZ:
      *value = 64;
      return true;
    case cudaDevAttrMaxGridDimX:
      *value = 0x7fffffff;
      return true;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *value = 65535;
      return true;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = 48 << 10;
      return true;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 227 << 10;
      return true;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = 228 << 10;
      return true;
    case cudaDevAttrMaxRegistersPerBlock:
      *value = 65536;
      return true;
    case cudaDevAttrWarpSize:
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = 32;
      return true;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      return true;
    case cudaDevAttrMultiProcessorCount:
      *value = settings().sms;
      return true;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      return true;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return true;
    case cudaDevAttrIntegrated:
    case cudaDevAttrComputeMode:
    case cudaDevAttrComputeCapabilityMinor:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrHostNativeAtomicSupported:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
      *value = 0;
      return true;
    case cudaDevAttrPciBusId:
      *value = device + 1;
      return true;
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrCooperativeLaunch:
      *value = 1;
      return true;
  }
  return false;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int *count) {
  return api("cudaGetDeviceCount", [&] {
    if (!count) return cudaErrorInvalidValue;
    initialize_driver();
    *count = std::max(0, settings().devices);
    return node_status();
  });
}

cudaError_t cudaSetDevice(int index) {
  return api("cudaSetDevice", [&] {
    if (const cudaError_t error = node_status()) return error;
    if (!device(index)) return cudaErrorInvalidDevice;
    thread_state.device = index;
    return device_status();
  });
}

cudaError_t cudaGetDevice(int *index) {
  return api("cudaGetDevice", [&] {
    if (!index) return cudaErrorInvalidValue;
    *index = thread_state.device;
    return node_status();
  });
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int index) {
  return api("cudaDeviceGetAttribute", [&] {
    if (!device(index)) return cudaErrorInvalidDevice;
    return value && attribute_value(attribute, index, value) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int index) {
  return api("cudaDeviceGetPCIBusId", [&] {
    if (!device(index)) return cudaErrorInvalidDevice;
    if (!text || length < 13) return cudaErrorInvalidValue;
    snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", (index + 1) & 0xff);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int index, int peer) {
  return api("cudaDeviceCanAccessPeer", [&] {
    if (!can) return cudaErrorInvalidValue;
    if (!device(index) || !device(peer)) return cudaErrorInvalidDevice;
    *can = index != peer;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api("cudaDeviceSynchronize", [&] {
    if (const cudaError_t error = device_status()) return error;
    if (const cudaError_t error = check_unsafe_call()) return error;
    drain_device(thread_state.device);
    return device_status();
  });
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  return api("cudaRuntimeGetVersion", [&] {
    if (!version) return cudaErrorInvalidValue;
    *version = settings().runtime_version;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int *version) {
  return api("cudaDriverGetVersion", [&] {
    if (!version) return cudaErrorInvalidValue;
    *version = settings().driver_version;
    return cudaSuccess;
  });
}

// Texts cannot fail: a fault that is injected into them changes nothing.

const char *cudaGetErrorName(cudaError_t error) {
  static Site &here = site("cudaGetErrorName");
  enter(here);
  const ErrorText *found = find_error(error);
  return found ? found->name : "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
  static Site &here = site("cudaGetErrorString");
  enter(here);
  const ErrorText *found = find_error(error);
  return found ? found->text : "unrecognized error code";
}

cudaError_t cudaGetLastError() {
  static Site &here = site("cudaGetLastError");
  if (const int injected = enter(here)) return static_cast<cudaError_t>(injected);
  const cudaError_t error = thread_state.last_error;
  thread_state.last_error = cudaSuccess;
  const cudaError_t sticky = device_status();
  return sticky ? sticky : error;
}

cudaError_t cudaPeekAtLastError() {
  static Site &here = site("cudaPeekAtLastError");
  if (const int injected = enter(here)) return static_cast<cudaError_t>(injected);
  const cudaError_t sticky = device_status();
  return sticky ? sticky : thread_state.last_error;
}
}
