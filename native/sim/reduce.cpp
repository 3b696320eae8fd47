// The arithmetic of an all-reduce. See reduce.h.
#include "reduce.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <numeric>

#include "sim.h"

namespace syncbn::sim {

namespace {

constexpr size_t kRun = 64;  // elements that share an order

float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Types that the host does not compute with are computed as float: the sum of two of them is exact there or rounds
// twice harmlessly, since float has more than twice their digits.
struct Half {
  uint16_t bits;
  operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, exponent = bits >> 10 & 31,
                   digits = bits & 1023u;
    if (exponent == 0) return copysignf(ldexpf(static_cast<float>(digits), -24), bits_to_float(sign | 0x3f800000u));
    if (exponent == 31) return bits_to_float(sign | 0x7f800000u | digits << 13);
    return bits_to_float(sign | (exponent + 112) << 23 | digits << 13);
  }
  static Half of(float value) {
    const uint32_t sign = float_to_bits(value) >> 16 & 0x8000u;
    const float size = fabsf(value);
    if (!(size == size)) return {static_cast<uint16_t>(sign | 0x7e00u)};
    if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00u)};
    // The distance of neighbours there: 2^-10 of the power of two below, at least 2^-24. nearbyint rounds to even.
    int exponent;
    frexpf(size, &exponent);
    const int unit = std::max(exponent - 11, -24);
    const uint32_t steps = static_cast<uint32_t>(nearbyintf(ldexpf(size, -unit)));
    // A carry into the next power of two falls into the exponent field, where it belongs.
    const uint32_t magnitude = unit == -24 ? steps : (static_cast<uint32_t>(unit + 24) << 10) + steps;
    return {static_cast<uint16_t>(sign | magnitude)};
  }
};

struct Bfloat16 {
  uint16_t bits;
  operator float() const { return bits_to_float(static_cast<uint32_t>(bits) << 16); }
  static Bfloat16 of(float value) {
    const uint32_t raw = float_to_bits(value);
    if (!(value == value)) return {static_cast<uint16_t>(raw >> 16 | 0x40u)};
    return {static_cast<uint16_t>((raw + 0x7fffu + (raw >> 16 & 1)) >> 16)};
  }
};

template <typename T>
T combine(T a, T b, ncclRedOp_t operation) {
  if (operation == ncclMin) return b < a ? b : a;
  if (operation == ncclMax) return a < b ? b : a;
  return static_cast<T>(a + b);
}
Half combine(Half a, Half b, ncclRedOp_t operation) { return Half::of(combine<float>(a, b, operation)); }
Bfloat16 combine(Bfloat16 a, Bfloat16 b, ncclRedOp_t operation) {
  return Bfloat16::of(combine<float>(a, b, operation));
}
// Signed overflow wraps on the device.
int32_t combine(int32_t a, int32_t b, ncclRedOp_t operation) {
  if (operation != ncclSum) return combine<int32_t>(a, b, operation);
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
int64_t combine(int64_t a, int64_t b, ncclRedOp_t operation) {
  if (operation != ncclSum) return combine<int64_t>(a, b, operation);
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

template <typename T>
void reduce_as(void *to, const std::vector<const void *> &parts, size_t count, ncclRedOp_t operation, uint64_t seed) {
  std::vector<size_t> order(parts.size());
  for (size_t start = 0; start < count; start += kRun) {
    std::iota(order.begin(), order.end(), size_t{0});
    uint64_t shuffle = mix(seed + start);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[(shuffle = mix(shuffle)) % i]);
    for (size_t i = start; i < std::min(count, start + kRun); ++i) {
      T sum = static_cast<const T *>(parts[order[0]])[i];
      for (size_t k = 1; k < order.size(); ++k) {
        sum = combine(sum, static_cast<const T *>(parts[order[k]])[i], operation);
      }
      static_cast<T *>(to)[i] = sum;
    }
  }
}

}  // namespace

size_t element_size(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
      return 8;
  }
  return 0;
}

bool can_reduce(ncclRedOp_t operation) { return operation == ncclSum || operation == ncclMin || operation == ncclMax; }

void reduce(void *to, const std::vector<const void *> &parts, size_t count, ncclDataType_t type, ncclRedOp_t operation,
            uint64_t seed) {
  switch (type) {
    case ncclInt8:
      return reduce_as<int8_t>(to, parts, count, operation, seed);
    case ncclUint8:
      return reduce_as<uint8_t>(to, parts, count, operation, seed);
    case ncclInt32:
      return reduce_as<int32_t>(to, parts, count, operation, seed);
    case ncclUint32:
      return reduce_as<uint32_t>(to, parts, count, operation, seed);
    case ncclInt64:
      return reduce_as<int64_t>(to, parts, count, operation, seed);
    case ncclUint64:
      return reduce_as<uint64_t>(to, parts, count, operation, seed);
    case ncclFloat16:
      return reduce_as<Half>(to, parts, count, operation, seed);
    case ncclFloat32:
      return reduce_as<float>(to, parts, count, operation, seed);
    case ncclFloat64:
      return reduce_as<double>(to, parts, count, operation, seed);
    case ncclBfloat16:
      return reduce_as<Bfloat16>(to, parts, count, operation, seed);
  }
}

}  // namespace syncbn::sim
