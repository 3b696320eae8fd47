#include "dtype.h"

#include <string.h>

#include <cmath>
#include <limits>

namespace test {
namespace {

struct Format {
  const char *name;
  int bytes;
  int precision;     // bits of the significand, the leading one included
  int min_exponent;  // of the smallest normal number; the largest has 1 - min_exponent

  int fraction() const { return precision - 1; }
  int infinity() const { return 3 - 2 * min_exponent; }  // the exponent's field of what is not finite
};

const Format &format_of(int32_t dtype) {
  static constexpr Format kFormats[] = {
      {"float32", 4, 24, -126}, {"float16", 2, 11, -14}, {"bfloat16", 2, 8, -126}, {"float64", 8, 53, -1022}};
  return kFormats[dtype];
}

uint16_t encode16(const Format &format, double value) {
  const int fraction = format.fraction();
  const int sign = std::signbit(value) ? 0x8000 : 0;
  const int infinity = format.infinity() << fraction;
  if (std::isnan(value)) return static_cast<uint16_t>(infinity | 1 << (fraction - 1));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  if (value == 0) return static_cast<uint16_t>(sign);
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  // The leading one of a normal number adds 1 to the exponent's field.
  const int significand = static_cast<int>(std::ldexp(std::fabs(value), fraction - exponent));
  return static_cast<uint16_t>(sign | (((exponent - format.min_exponent) << fraction) + significand));
}

double decode16(const Format &format, uint16_t bits) {
  const int fraction = format.fraction();
  const int field = (bits & 0x7fff) >> fraction;
  const int significand = bits & ((1 << fraction) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (field == format.infinity()) {
    return significand ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  const int exponent = std::max(field, 1) - 1 + format.min_exponent;
  return sign * std::ldexp(significand + (field > 0 ? 1 << fraction : 0), exponent - fraction);
}

}  // namespace

const char *name_of(int32_t dtype) { return format_of(dtype).name; }
int64_t bytes_of(int32_t dtype) { return format_of(dtype).bytes; }
int32_t parameter_of(int32_t dtype) { return dtype == SYNCBN_FLOAT64 ? SYNCBN_FLOAT64 : SYNCBN_FLOAT32; }
double half_ulp(int32_t dtype) { return std::ldexp(1.0, -format_of(parameter_of(dtype)).precision); }

double rounded(int32_t dtype, long double value) {
  if (!std::isfinite(value) || value == 0) return static_cast<double>(value);
  const Format &format = format_of(dtype);
  const int unit = std::max(std::ilogb(value), format.min_exponent) - format.fraction();
  const long double result = std::ldexp(std::rint(std::ldexp(value, -unit)), unit);
  const bool overflow = std::ilogb(result) > 1 - format.min_exponent;
  return overflow ? std::copysign(std::numeric_limits<double>::infinity(), static_cast<double>(value))
                  : static_cast<double>(result);
}

std::vector<double> rounded(int32_t dtype, std::vector<double> values) {
  for (double &value : values) value = rounded(dtype, static_cast<long double>(value));
  return values;
}

std::vector<unsigned char> encode(int32_t dtype, const std::vector<double> &values) {
  const Format &format = format_of(dtype);
  std::vector<unsigned char> bytes(values.size() * static_cast<size_t>(format.bytes));
  for (size_t i = 0; i < values.size(); ++i) {
    unsigned char *const to = bytes.data() + i * static_cast<size_t>(format.bytes);
    const float narrow = static_cast<float>(values[i]);
    const uint16_t bits = format.bytes == 2 ? encode16(format, values[i]) : 0;
    const void *const from = format.bytes == 8   ? static_cast<const void *>(&values[i])
                             : format.bytes == 4 ? static_cast<const void *>(&narrow)
                                                 : static_cast<const void *>(&bits);
    memcpy(to, from, static_cast<size_t>(format.bytes));
  }
  return bytes;
}

std::vector<double> decode(int32_t dtype, const std::vector<unsigned char> &bytes) {
  const Format &format = format_of(dtype);
  std::vector<double> values(bytes.size() / static_cast<size_t>(format.bytes));
  for (size_t i = 0; i < values.size(); ++i) {
    const unsigned char *const from = bytes.data() + i * static_cast<size_t>(format.bytes);
    float narrow;
    uint16_t bits;
    switch (format.bytes) {
      case 2:
        memcpy(&bits, from, sizeof bits);
        values[i] = decode16(format, bits);
        break;
      case 4:
        memcpy(&narrow, from, sizeof narrow);
        values[i] = static_cast<double>(narrow);
        break;
      default:
        memcpy(&values[i], from, sizeof values[i]);
    }
  }
  return values;
}

}  // namespace test
