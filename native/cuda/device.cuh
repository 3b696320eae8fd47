// The one header through which a kernel source sees CUDA. Under nvcc it is CUDA; under g++ it is the simulated device
// language of native/sim, so that the very same .cu files run on machines without a GPU.
//
// Rules for the .cu files, so that both compilers take them: no <<<>>> (use launch), no bare inline PTX and no bare
// spin loop (add a wrapper here), kernels take one trivially copyable struct by value, static shared memory of trivial
// types only, and what another block touches atomically is only ever touched atomically.
#ifndef SYNCBN_DEVICE_CUH
#define SYNCBN_DEVICE_CUH

#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Dynamic shared memory of the launch.
#define SYNCBN_DYNAMIC_SHARED(type, name) extern __shared__ type name[]

namespace syncbn {

template <typename Params>
const void *kernel_address(void (*kernel)(Params)) {
  return reinterpret_cast<const void *>(kernel);
}

// A load that the host's and other devices' writes reach, and that later loads do not overtake.
__device__ __forceinline__ uint32_t load_acquire_system(const uint32_t *address) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}

// A store that the host sees only after this thread's earlier stores.
__device__ __forceinline__ void store_release_system(uint32_t *address, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// The same among the threads of the device.
__device__ __forceinline__ uint32_t load_acquire(const uint32_t *address) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(uint32_t *address, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// A store that the compiler does not take apart, as it does some with branches around them.
__device__ __forceinline__ void store_whole(unsigned short *address, unsigned short value) { *address = value; }
__device__ __forceinline__ void store_whole(unsigned *address, unsigned value) { *address = value; }
__device__ __forceinline__ void store_whole(uint2 *address, uint2 value) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(value.x), "r"(value.y) : "memory");
}
__device__ __forceinline__ void store_whole(uint4 *address, uint4 value) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

// The same, of a line that is the first to leave the caches.
__device__ __forceinline__ void store_streamed(unsigned short *address, unsigned short value) {
  __stcs(address, value);
}
__device__ __forceinline__ void store_streamed(unsigned *address, unsigned value) { __stcs(address, value); }
__device__ __forceinline__ void store_streamed(uint2 *address, uint2 value) { __stcs(address, value); }
__device__ __forceinline__ void store_streamed(uint4 *address, uint4 value) { __stcs(address, value); }

// Leaves the value as it is, but the compiler must take it for another: what follows from it is computed again where it
// is needed, rather than kept in registers.
__device__ __forceinline__ void forget(int64_t &value) { asm volatile("" : "+l"(value)); }
__device__ __forceinline__ void forget(unsigned short &value) { asm volatile("" : "+h"(value)); }
__device__ __forceinline__ void forget(unsigned &value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void forget(uint2 &value) { asm volatile("" : "+r"(value.x), "+r"(value.y)); }
__device__ __forceinline__ void forget(uint4 &value) {
  asm volatile("" : "+r"(value.x), "+r"(value.y), "+r"(value.z), "+r"(value.w));
}

}  // namespace syncbn

#include "launch.cuh"

#else
#include "../sim/device_language.h"
#endif

#endif
