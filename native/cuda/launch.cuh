// How is a kernel enqueued? For both compilers: each defines kernel_address, what the runtime knows a kernel by.
#ifndef SYNCBN_LAUNCH_CUH
#define SYNCBN_LAUNCH_CUH

namespace syncbn {

// More dynamic shared memory than this has to be asked for.
constexpr size_t kSharedUnasked = 48 << 10;

// Enqueues kernel<<<grid, block, shared, stream>>>(params) and returns the launch's error, leaving none behind.
// shared: bytes of dynamic shared memory. together: all blocks are on the device at a time, or the launch fails.
template <typename Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, cudaStream_t stream, Params params, size_t shared = 0,
                   bool together = false) {
  const void *address = kernel_address(kernel);
  cudaError_t error = cudaSuccess;
  if (shared > kSharedUnasked) {
    error = cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = together ? 1 : 0;
  void *arguments[] = {&params};
  if (error == cudaSuccess) error = cudaLaunchKernelExC(&config, address, arguments);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

}  // namespace syncbn

#endif
