// The tests' device is a GPU, or the simulated node: whichever CUDA runtime the program is linked with.
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"

namespace backend {
namespace {

void require(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s (%s)\n", what, cudaGetErrorString(error), cudaGetErrorName(error));
  abort();
}

}  // namespace

const char *const kName = "cuda";
// 64 additions before a thread's sums go into float64 (reduce.cuh), one subtraction, one product.
const int kRoundings = 66;
#if defined(SYNCBN_TEST_SIM)
const int64_t kMaxElements = 5000;
const int kSweepStride = 4;
#else
const int64_t kMaxElements = 40000;
const int kSweepStride = 1;
#endif

void *allocate(size_t bytes) {
  void *address = nullptr;
  require(cudaMalloc(&address, bytes), "cudaMalloc");
  return address;
}

void release(void *address) { require(cudaFree(address), "cudaFree"); }

void *allocate_shared(size_t bytes) {
  void *address = nullptr;
  require(cudaHostAlloc(&address, bytes, cudaHostAllocMapped), "cudaHostAlloc");
  memset(address, 0, bytes);
  return address;
}

void release_shared(void *address) { require(cudaFreeHost(address), "cudaFreeHost"); }

void upload(void *device, const void *host, size_t bytes) {
  require(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

void download(void *host, const void *device, size_t bytes) {
  require(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

void forbid(void *, size_t, bool) {}

syncbn_address stream() {
  struct Stream {
    cudaStream_t stream = nullptr;

    // Blocking against the default stream, on which upload and download run.
    Stream() { require(cudaStreamCreate(&stream), "cudaStreamCreate"); }
    ~Stream() { require(cudaStreamDestroy(stream), "cudaStreamDestroy"); }
  };
  static const Stream stream;
  return reinterpret_cast<syncbn_address>(stream.stream);
}

void synchronize() { require(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream())), "the kernels"); }

int64_t workspace_bytes(int64_t channels) { return syncbn_cuda_workspace_bytes(channels); }
const char *last_error() { return syncbn_cuda_last_error(); }
const char *build_info() { return syncbn_cuda_build_info(); }
int32_t abi_version() { return syncbn_cuda_abi_version(); }
int32_t stats(const syncbn_stats_args *args) { return syncbn_cuda_stats(args); }
int32_t normalize(const syncbn_normalize_args *args) { return syncbn_cuda_normalize(args); }
int32_t backward_reduce(const syncbn_backward_reduce_args *args) { return syncbn_cuda_backward_reduce(args); }
int32_t backward_input(const syncbn_backward_input_args *args) { return syncbn_cuda_backward_input(args); }
int32_t copy(const syncbn_copy_args *args) { return syncbn_cuda_copy(args); }

const bool kHasDirections = true;
int32_t forward(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize) {
  return syncbn_cuda_forward(stats, normalize);
}
int32_t backward(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input) {
  return syncbn_cuda_backward(reduce, input);
}

}  // namespace backend
