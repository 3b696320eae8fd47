// What does every entry point do around its kernel? Keeps the thread's last error, turns addresses into pointers, and
// launches.
#ifndef SYNCBN_ENTRY_CUH
#define SYNCBN_ENTRY_CUH

#include "common/check.h"
#include "rows.cuh"

namespace syncbn {

// Of the calling thread.
Error &last_error();

template <typename T>
T *pointer(syncbn_address address) {
  return reinterpret_cast<T *>(address);
}

template <typename Params>
int enqueue(const char *operation, void (*kernel)(Params), const LaunchShape &shape, syncbn_address stream,
            const Params &params) {
  const cudaError_t error = launch(kernel, shape.grid, shape.block, reinterpret_cast<cudaStream_t>(stream), params);
  if (error == cudaSuccess) return SYNCBN_OK;
  return fail(last_error(), SYNCBN_DEVICE_ERROR, "%s: %s (%s)", operation, cudaGetErrorString(error),
              cudaGetErrorName(error));
}

}  // namespace syncbn

#endif
