// How does a thread load, convert and store the elements of a tensor?
//
// Elements are float32, float16, bfloat16 or float64. All arithmetic is in Compute<T>: float64 for float64, float32 for
// the others. Parameters (gamma, beta, the state, an adjustment) are of that type too.
#ifndef SYNCBN_ELEMENT_CUH
#define SYNCBN_ELEMENT_CUH

#include "device.cuh"

namespace syncbn {

template <typename T>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
template <typename T>
using Compute = typename ComputeOf<T>::Type;

__device__ __forceinline__ float computed(float value) { return value; }
__device__ __forceinline__ float computed(__half value) { return __half2float(value); }
__device__ __forceinline__ float computed(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ double computed(double value) { return value; }

// To nearest even.
__device__ __forceinline__ void round_to(float &element, float value) { element = value; }
__device__ __forceinline__ void round_to(__half &element, float value) { element = __float2half_rn(value); }
__device__ __forceinline__ void round_to(__nv_bfloat16 &element, float value) { element = __float2bfloat16_rn(value); }
__device__ __forceinline__ void round_to(double &element, double value) { element = value; }

// a * b + c, rounded once. Written out, as __dmul_rn is where it must not happen, wherever two kernels or two variants
// of one must find the same bits: whether a product and a sum become one instruction is otherwise the compiler's whim.
__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

// A load that leaves the line in the caches, for data that a later kernel of the step reads again.
struct Keep {
  template <typename T>
  static __device__ __forceinline__ T load(const T *address) {
    return *address;
  }
};

// A load of data that nothing reads again soon: its line is the first to leave the caches. Not the read-only path,
// since an output may be the input's memory.
struct LastUse {
  template <typename T>
  static __device__ __forceinline__ T load(const T *address) {
    return __ldcs(address);
  }
};

// What one instruction moves of four elements.
template <typename T>
struct QuadOf {
  using Type = uint2;
};
template <>
struct QuadOf<float> {
  using Type = float4;
};

// The adjacent elements that a thread works on at a time.
template <typename V>
struct Unit {
  typename V::Element v[V::kWidth];
};

// Whether a unit is moved whole: the host has seen to the alignment.
template <typename V>
constexpr bool kWhole = V::kWidth == 4 && !V::kSpecial;

template <typename V, typename Cache>
__device__ __forceinline__ Unit<V> load_unit(const typename V::Element *address) {
  Unit<V> unit;
  if constexpr (kWhole<V>) {
    using Quad = typename QuadOf<typename V::Element>::Type;
    const Quad quad = Cache::load(reinterpret_cast<const Quad *>(address));
    static_assert(sizeof unit == sizeof quad, "a quad is a unit");
    memcpy(&unit, &quad, sizeof unit);
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) unit.v[j] = Cache::load(address + j);
  }
  return unit;
}

template <typename V>
__device__ __forceinline__ void store_unit(typename V::Element *address, const Unit<V> &unit) {
  if constexpr (kWhole<V>) {
    using Quad = typename QuadOf<typename V::Element>::Type;
    Quad quad;
    memcpy(&quad, &unit, sizeof unit);
    *reinterpret_cast<Quad *>(address) = quad;
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) address[j] = unit.v[j];
  }
}

// One bit for each element of a unit.
using Bits = unsigned;
constexpr Bits kAllBits = ~0u;

__device__ __forceinline__ bool has_bit(Bits bits, int j) { return (bits >> j & 1) != 0; }

// From bytes that are 0 or not, `stride` apart; 1 where kWhole.
template <typename V>
__device__ __forceinline__ Bits load_bits(const uint8_t *address, int64_t stride) {
  Bits bits = 0;
  if constexpr (kWhole<V>) {
    const uint32_t word = *reinterpret_cast<const uint32_t *>(address);
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) bits |= static_cast<Bits>((word >> 8 * j & 0xff) != 0) << j;
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) bits |= static_cast<Bits>(address[j * stride] != 0) << j;
  }
  return bits;
}

// To adjacent bytes of 0 or 1.
template <typename V>
__device__ __forceinline__ void store_bits(uint8_t *address, Bits bits) {
  if constexpr (kWhole<V>) {
    uint32_t word = 0;
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) word |= static_cast<uint32_t>(has_bit(bits, j)) << 8 * j;
    *reinterpret_cast<uint32_t *>(address) = word;
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) address[j] = has_bit(bits, j);
  }
}

}  // namespace syncbn

#endif
