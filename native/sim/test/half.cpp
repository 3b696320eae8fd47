// Are float16 and bfloat16 what CUDA's are, bit for bit? Against their definition, evaluated in float64.
#include <math.h>

#include "check.h"

namespace {

// A 16-bit floating-point type by its definition.
struct Format {
  int fraction_bits;
  int bias;

  int largest_exponent() const { return (1 << (15 - fraction_bits)) - 1; }
  unsigned infinity() const { return static_cast<unsigned>(largest_exponent()) << fraction_bits; }
  double value(unsigned bits) const {
    const int fraction = static_cast<int>(bits & ((1u << fraction_bits) - 1));
    const int exponent = static_cast<int>(bits >> fraction_bits) & largest_exponent();
    const double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == largest_exponent()) return fraction ? NAN : sign * INFINITY;
    const int implied = exponent == 0 ? 0 : 1 << fraction_bits;
    return sign * ldexp(implied + fraction, (exponent == 0 ? 1 : exponent) - bias - fraction_bits);
  }
};

bool same(float got, double want) {
  return isnan(want) ? isnan(got) != 0 : static_cast<double>(got) == want && signbit(got) == signbit(want);
}

template <typename Widen, typename Round>
void check_format(const Format &format, Widen widen, Round round) {
  int wrong = 0;
  const auto expect = [&](float value, unsigned want) {
    wrong += round(value) != want;
    wrong += round(-value) != (want | 0x8000);
  };
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const double value = format.value(bits);
    wrong += !same(widen(bits), value);
    wrong += round(static_cast<float>(value)) != (isnan(value) ? 0x7fff : bits);
  }
  // Between neighbours: the middle goes to the even one, everything else to the nearer. What comes after the largest
  // finite one counts as a power of two, and is infinity.
  for (unsigned bits = 0; bits < format.infinity(); ++bits) {
    const double low = format.value(bits);
    const double high = bits + 1 < format.infinity() ? format.value(bits + 1) : ldexp(1.0, format.bias + 1);
    const float middle = static_cast<float>((low + high) / 2);
    CHECK(static_cast<double>(middle) == (low + high) / 2);
    expect(middle, bits + bits % 2);
    expect(nextafterf(middle, 0.0f), bits);
    expect(nextafterf(middle, INFINITY), bits + 1);
    expect(nextafterf(static_cast<float>(low), INFINITY), bits);
  }
  expect(INFINITY, format.infinity());
  expect(nextafterf(INFINITY, 0.0f), format.infinity());
  CHECK_EQUAL(round(NAN), 0x7fffu);
  CHECK_EQUAL(round(-NAN), 0x7fffu);
  CHECK_EQUAL(wrong, 0);
}

TEST(float16_is_exact) {
  check_format(
      Format{10, 15}, [](unsigned bits) { return __half2float(__ushort_as_half(static_cast<unsigned short>(bits))); },
      [](float value) { return static_cast<unsigned>(__half_as_ushort(__float2half_rn(value))); });
}

TEST(bfloat16_is_exact) {
  check_format(
      Format{7, 127},
      [](unsigned bits) { return __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(bits))); },
      [](float value) { return static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(value))); });
}

}  // namespace
