// What is an element? The types of tensors, what is computed with for each, and 16-bit formats in bits.
//
// Everything here is local to the including file: loops.inc compiles it for several instruction sets, and a function
// that the linker could share with another file might bring instructions that the processor lacks.
#ifndef SYNCBN_CPU_ELEMENT_H
#define SYNCBN_CPU_ELEMENT_H

#include <stdint.h>

#include <type_traits>

namespace syncbn::cpu {

struct Half {
  uint16_t bits;
};

struct Bfloat16 {
  uint16_t bits;
};

// What elements of type T are computed in, which is the type of the parameters too.
template <typename T>
struct RealOf {
  using Type = float;
};
template <>
struct RealOf<double> {
  using Type = double;
};
template <typename T>
using Real = typename RealOf<T>::Type;

namespace {

template <typename To, typename From>
inline To bits_of(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  __builtin_memcpy(&result, &value, sizeof result);
  return result;
}

// Which of two NaNs an operation passes on depends on how it was compiled: all that are stored are the same one.
template <typename V>
inline V with_one_nan(V value) {
  return value == value ? value : V{} + __builtin_nanf("");
}

// A sum that is to be rounded to float as the exact sum of a and b is: where it is not exact, the neighbour with an odd
// last bit, from which rounding goes the right way.
inline double odd_sum(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double error = (a - (sum - part)) + (b - part);  // exact; NaN where the sum is not finite
  const uint64_t bits = bits_of<uint64_t>(sum);
  if (bits % 2 != 0 || !(error > 0 || error < 0)) return sum;
  return bits_of<double>((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

// a * b + c: of floats rounded once, also without an instruction for it; of doubles, for which that would be slow,
// twice.
inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);
#else
  return static_cast<float>(odd_sum(static_cast<double>(a) * static_cast<double>(b), static_cast<double>(c)));
#endif
}
inline double multiply_add(double a, double b, double c) { return a * b + c; }

// The conversions take one value or a vector of them: Float is float32, Bits uint32 of the same shape, of which a
// 16-bit format takes the low half. They do what processors with such instructions do; to_ takes no NaN but that one.

template <typename Float, typename Bits>
inline Float from_half(Bits half) {
  constexpr uint32_t kInfinity = 0x7c00u << 13;
  const Bits magnitude = (half & 0x7fffu) << 13;
  // A power of two: exact, also for what is denormal as a Half.
  Bits bits = bits_of<Bits>(bits_of<Float>(magnitude) * 0x1p112f);
  bits = magnitude >= kInfinity ? magnitude | 0x7f800000u : bits;
  bits = magnitude > kInfinity ? bits | 0x00400000u : bits;  // a quiet NaN
  return bits_of<Float>(bits | (half & 0x8000u) << 16);
}

template <typename Float, typename Bits>
inline Bits to_half(Float value) {
  const Bits bits = bits_of<Bits>(value);
  const Bits magnitude = bits & 0x7fffffffu;
  // Another exponent, and to nearest even: half of the last place, where that is even a little less.
  Bits half = (magnitude - (112u << 23) + 0x0fffu + (magnitude >> 13 & 1u)) >> 13;
  // What is denormal as a Half: the addition rounds at its last place, 2^-24.
  half = magnitude < (113u << 23) ? bits_of<Bits>(bits_of<Float>(magnitude) + 0.5f) - bits_of<uint32_t>(0.5f) : half;
  half = magnitude >= (143u << 23) ? Bits{} + 0x7c00u : half;
  half = magnitude > 0x7f800000u ? Bits{} + 0x7e00u : half;
  return half | (bits >> 16 & 0x8000u);
}

template <typename Float, typename Bits>
inline Float from_bfloat16(Bits bfloat16) {
  return bits_of<Float>(bfloat16 << 16);
}

// In the high half; what is below is not rounded away yet.
template <typename Float, typename Bits>
inline Bits to_high_bfloat16(Float value) {
  const Bits bits = bits_of<Bits>(value);
  return bits + 0x7fffu + (bits >> 16 & 1u);
}

template <typename Float, typename Bits>
inline Bits to_bfloat16(Float value) {
  return to_high_bfloat16<Float, Bits>(value) >> 16;
}

inline float value(float element) { return element; }
inline double value(double element) { return element; }
inline float value(Half element) { return from_half<float, uint32_t>(element.bits); }
inline float value(Bfloat16 element) { return from_bfloat16<float, uint32_t>(element.bits); }

// The nearest element.
template <typename T>
inline T element(Real<T> value) {
  value = with_one_nan(value);
  if constexpr (sizeof(T) == 2) {
    const uint32_t bits =
        std::is_same_v<T, Half> ? to_half<float, uint32_t>(value) : to_bfloat16<float, uint32_t>(value);
    return {static_cast<uint16_t>(bits)};
  } else {
    return value;
  }
}

}  // namespace
}  // namespace syncbn::cpu

#endif
