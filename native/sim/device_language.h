// CUDA's device language for a host compiler: with it g++ takes the .cu sources as they are. Included by
// cuda/device.cuh where the compiler is not nvcc.
//
// A device thread is a fiber (block.h); the functions in which device threads meet pass their source line on, so that a
// divergent barrier can be named. Shared memory is thread-local storage of the OS thread that runs the block.
#ifndef SYNCBN_SIM_DEVICE_LANGUAGE_H
#define SYNCBN_SIM_DEVICE_LANGUAGE_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "device_runtime.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static thread_local
// Dynamic shared memory of the launch; its end is a guard page.
#define SYNCBN_DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(sim_dynamic_shared())

constexpr int warpSize = 32;

// ---- barriers

inline void __syncthreads(int line = __builtin_LINE()) { sim_barrier(SIM_BARRIER, 0, line); }
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
  return sim_barrier(SIM_BARRIER_OR, predicate, line);
}
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
  return sim_barrier(SIM_BARRIER_AND, predicate, line);
}
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
  return sim_barrier(SIM_BARRIER_COUNT, predicate, line);
}

// ---- warps

inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
  sim_warp(SIM_WARP_SYNC, mask, 0, 0, warpSize, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return static_cast<unsigned>(sim_warp(SIM_WARP_BALLOT, mask, predicate != 0, 0, warpSize, line));
}

namespace syncbn::sim {

template <typename T>
T shuffle(sim_warp_operation operation, unsigned mask, T value, int operand, int width, int line) {
  static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "a type that CUDA shuffles");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = sim_warp(operation, mask, bits, operand, width, line);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace syncbn::sim

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize, int line = __builtin_LINE()) {
  return syncbn::sim::shuffle(SIM_WARP_SHUFFLE, mask, value, lane, width, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, int line = __builtin_LINE()) {
  return syncbn::sim::shuffle(SIM_WARP_SHUFFLE_UP, mask, value, static_cast<int>(delta), width, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, int line = __builtin_LINE()) {
  return syncbn::sim::shuffle(SIM_WARP_SHUFFLE_DOWN, mask, value, static_cast<int>(delta), width, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, int line = __builtin_LINE()) {
  return syncbn::sim::shuffle(SIM_WARP_SHUFFLE_XOR, mask, value, lanes, width, line);
}

// ---- fences and atomics
//
// Atomics are relaxed, as CUDA's are: only a fence orders anything. ThreadSanitizer is told of both.

inline void __threadfence_block() { sim_fence(); }
inline void __threadfence() { sim_fence(); }
inline void __threadfence_system() { sim_fence(); }

namespace syncbn::sim {

// CUDA has these for 32 and 64 bits only.
template <typename T>
constexpr bool kAtomic = std::is_integral<T>::value && (sizeof(T) == 4 || sizeof(T) == 8);

template <typename T, typename Change>
T exchange_by(T *address, Change change) {
  sim_before_atomic(address);
  T old, changed;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    changed = change(old);
  } while (!__atomic_compare_exchange(address, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace syncbn::sim

template <typename T>
T atomicAdd(T *address, std::common_type_t<T> value) {
  static_assert(std::is_floating_point<T>::value || syncbn::sim::kAtomic<T>, "a type that CUDA adds atomically");
  return syncbn::sim::exchange_by(address, [=](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicExch(T *address, std::common_type_t<T> value) {
  return syncbn::sim::exchange_by(address, [=](T) { return value; });
}
template <typename T>
T atomicOr(T *address, std::common_type_t<T> value) {
  static_assert(syncbn::sim::kAtomic<T>, "a type that CUDA combines atomically");
  return syncbn::sim::exchange_by(address, [=](T old) { return static_cast<T>(old | value); });
}
template <typename T>
T atomicCAS(T *address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  static_assert(syncbn::sim::kAtomic<T>, "a type that CUDA compares atomically");
  return syncbn::sim::exchange_by(address, [=](T old) { return old == expected ? value : old; });
}
// Counts 0, 1, .., last, 0, 1, ..
inline unsigned atomicInc(unsigned *address, unsigned last) {
  return syncbn::sim::exchange_by(address, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}

// ---- loads and stores with cache hints, which the host does not have

template <typename T>
T __ldg(const T *address) {
  return *address;
}
template <typename T>
T __ldcs(const T *address) {
  return *address;
}
template <typename T>
T __ldcg(const T *address) {
  return *address;
}
template <typename T>
void __stcs(T *address, std::common_type_t<T> value) {
  *address = value;
}
template <typename T>
void __stcg(T *address, std::common_type_t<T> value) {
  *address = value;
}

// ---- arithmetic

inline int __float_as_int(float value) { return syncbn::sim::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return syncbn::sim::bit_cast<unsigned>(value); }
inline float __int_as_float(int value) { return syncbn::sim::bit_cast<float>(value); }
inline float __uint_as_float(unsigned value) { return syncbn::sim::bit_cast<float>(value); }
inline long long __double_as_longlong(double value) { return syncbn::sim::bit_cast<long long>(value); }
inline double __longlong_as_double(long long value) { return syncbn::sim::bit_cast<double>(value); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

namespace syncbn::sim {
inline float inverse_root(float value) { return 1.0f / sqrtf(value); }
inline double inverse_root(double value) { return 1.0 / sqrt(value); }
}  // namespace syncbn::sim
// Macros, since newer C libraries declare functions of these names.
#define rsqrtf(value) (::syncbn::sim::inverse_root(static_cast<float>(value)))
#define rsqrt(value) (::syncbn::sim::inverse_root(static_cast<double>(value)))

inline int min(int a, int b) { return b < a ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline long min(long a, long b) { return b < a ? b : a; }
inline unsigned long min(unsigned long a, unsigned long b) { return b < a ? b : a; }
inline long long min(long long a, long long b) { return b < a ? b : a; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return b < a ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long max(long a, long b) { return a < b ? b : a; }
inline unsigned long max(unsigned long a, unsigned long b) { return a < b ? b : a; }
inline long long max(long long a, long long b) { return a < b ? b : a; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a < b ? b : a; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// ---- launching, and what device.cuh defines for both compilers

namespace syncbn {

namespace sim {

// Tells the runtime how to call a kernel, whose address is all that a launch gives it.
template <typename Params>
const void *known_kernel(void (*kernel)(Params)) {
  static_assert(std::is_trivially_copyable<Params>::value, "a launch copies its parameters byte by byte");
  static_assert(alignof(Params) <= alignof(max_align_t), "the copy has the alignment of allocated memory");
  const void *address = reinterpret_cast<const void *>(kernel);
  sim_register_kernel(
      address,
      [](const void *function, const void *params) {
        reinterpret_cast<void (*)(Params)>(const_cast<void *>(function))(*static_cast<const Params *>(params));
      },
      sizeof(Params),
      []() -> void * {
        static thread_local char anchor;
        return &anchor;
      });
  return address;
}

}  // namespace sim

template <typename Params>
const void *kernel_address(void (*kernel)(Params)) {
  return sim::known_kernel(kernel);
}

// A load that the host's and other devices' writes reach, and that later loads do not overtake. Other device threads
// run meanwhile, so a loop around it waits for them.
inline uint32_t load_acquire_system(const uint32_t *address) {
  sim_spin(address);
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}

// A store that the host sees only after this thread's earlier stores.
inline void store_release_system(uint32_t *address, uint32_t value) {
  __atomic_store_n(address, value, __ATOMIC_RELEASE);
}

// The same among the threads of the device.
inline uint32_t load_acquire(const uint32_t *address) { return load_acquire_system(address); }
inline void store_release(uint32_t *address, uint32_t value) { store_release_system(address, value); }

template <typename T>
void store_whole(T *address, T value) {
  *address = value;
}

template <typename T>
void store_streamed(T *address, T value) {
  *address = value;
}

// For the compiler of a GPU only.
template <typename T>
inline void forget(T &) {}

// Waits for all threads of a cooperative launch's grid.
inline void grid_sync(int line = __builtin_LINE()) { sim_grid_barrier(line); }

}  // namespace syncbn

#include "../cuda/launch.cuh"

#endif
