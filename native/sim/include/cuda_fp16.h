// CUDA's float16, as far as the kernels use it. Conversions are exact to the bit: to nearest even, with denormals; NaN
// becomes CUDA's one NaN.
#ifndef SYNCBN_SIM_CUDA_FP16_H
#define SYNCBN_SIM_CUDA_FP16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

struct alignas(2) __half {
  unsigned short bits;
};

inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }

inline float __half2float(__half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t exponent = value.bits >> 10 & 0x1f;
  const uint32_t fraction = value.bits & 0x3ff;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  uint32_t bits = sign | fraction << 13;
  if (exponent < 0x1f) {
    bits |= (exponent + 127 - 15) << 23;
  } else {
    bits = fraction ? 0x7fffffff : bits | 0x7f800000;
  }
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

inline __half __float2half_rn(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const unsigned short sign = static_cast<unsigned short>(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return {0x7fff};
  unsigned short magnitude;
  if (bits >= 0x477ff000) {  // 65520, half-way from the largest float16 to what would come next
    magnitude = 0x7c00;
  } else if (bits >= 0x38800000) {  // 2^-14, the smallest normal one
    const uint32_t rebiased = bits - ((127u - 15u) << 23);
    magnitude = static_cast<unsigned short>((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
  } else {
    // In units of 2^-24, a float32 that is small enough to be rounded to an integer.
    float units;
    memcpy(&units, &bits, sizeof units);
    magnitude = static_cast<unsigned short>(rintf(units * 0x1p24f));
  }
  return {static_cast<unsigned short>(sign | magnitude)};
}

#endif
