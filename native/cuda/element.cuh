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

// What one instruction moves.
template <size_t kBytes>
struct WordOf;
template <>
struct WordOf<2> {
  using Type = unsigned short;
};
template <>
struct WordOf<4> {
  using Type = unsigned;
};
template <>
struct WordOf<8> {
  using Type = uint2;
};
template <>
struct WordOf<16> {
  using Type = uint4;
};

// The adjacent elements that a thread works on at a time.
template <typename V>
struct Unit {
  typename V::Element v[V::kWidth];
};

// The same as it came from memory: unpacked, 16-bit elements take a register each.
template <typename V, bool kWhole = V::kWhole>
struct Packed {
  Unit<V> unit;
};
template <typename V>
struct Packed<V, true> {
  typename WordOf<sizeof(Unit<V>)>::Type word;
};

template <typename V, typename Cache>
__device__ __forceinline__ Packed<V> load_unit(const typename V::Element *address) {
  if constexpr (V::kWhole) {
    return {Cache::load(reinterpret_cast<const decltype(Packed<V>::word) *>(address))};
  } else {
    Packed<V> packed;
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) packed.unit.v[j] = Cache::load(address + j);
    return packed;
  }
}

// Not before this is reached, however early the compiler finds that it could.
template <typename V>
__device__ __forceinline__ Unit<V> unpack(Packed<V> packed) {
  if constexpr (V::kWhole) {
    Unit<V> unit;
    forget(packed.word);
    memcpy(&unit, &packed.word, sizeof unit);
    return unit;
  } else {
    return packed.unit;
  }
}

template <typename V>
__device__ __forceinline__ Packed<V> pack(const Unit<V> &unit) {
  Packed<V> packed;
  memcpy(&packed, &unit, sizeof packed);
  return packed;
}

// streamed: nothing reads it soon.
template <typename V>
__device__ __forceinline__ void store_unit(typename V::Element *address, const Unit<V> &unit, bool streamed = false) {
  if constexpr (V::kWhole) {
    auto word = pack<V>(unit).word;
    auto *to = reinterpret_cast<decltype(word) *>(address);
    if (streamed) {
      store_streamed(to, word);
    } else {
      store_whole(to, word);
    }
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) address[j] = unit.v[j];
  }
}

// One bit for each element of a unit.
using Bits = unsigned;
constexpr Bits kAllBits = ~0u;

__device__ __forceinline__ bool has_bit(Bits bits, int j) { return (bits >> j & 1) != 0; }

// The 32-bit words that hold a byte for each element of a unit.
template <typename V>
constexpr int kByteWords = (V::kWidth + 3) / 4;

// From adjacent bytes that are 0 or not.
template <typename V>
__device__ __forceinline__ Bits load_bits(const uint8_t *address) {
  Bits bits = 0;
  if constexpr (V::kWhole) {
    const auto word = *reinterpret_cast<const typename WordOf<V::kWidth>::Type *>(address);
    uint32_t bytes[kByteWords<V>] = {};
    memcpy(bytes, &word, sizeof word);
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) bits |= static_cast<Bits>((bytes[j / 4] >> 8 * (j % 4) & 0xff) != 0) << j;
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) bits |= static_cast<Bits>(address[j] != 0) << j;
  }
  return bits;
}

// To adjacent bytes of 0 or 1.
template <typename V>
__device__ __forceinline__ void store_bits(uint8_t *address, Bits bits) {
  if constexpr (V::kWhole) {
    uint32_t bytes[kByteWords<V>] = {};
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) bytes[j / 4] |= static_cast<uint32_t>(has_bit(bits, j)) << 8 * (j % 4);
    typename WordOf<V::kWidth>::Type word;
    memcpy(&word, bytes, sizeof word);
    store_whole(reinterpret_cast<decltype(word) *>(address), word);
  } else {
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) address[j] = has_bit(bits, j);
  }
}

}  // namespace syncbn

#endif
