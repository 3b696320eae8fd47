// CUDA's bfloat16, as far as the kernels use it. Conversions are exact to the bit: to nearest even, with denormals; NaN
// becomes CUDA's one NaN.
#ifndef SYNCBN_SIM_CUDA_BF16_H
#define SYNCBN_SIM_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

struct alignas(2) __nv_bfloat16 {
  unsigned short bits;
};

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }

inline float __bfloat162float(__nv_bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

#endif
