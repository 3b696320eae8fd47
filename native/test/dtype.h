// How does a tensor of a dtype hold numbers? On the host every number of every dtype is a double.
#ifndef SYNCBN_TEST_DTYPE_H
#define SYNCBN_TEST_DTYPE_H

#include <stdint.h>

#include <iterator>
#include <vector>

#include "syncbn.h"

namespace test {

constexpr int32_t kDtypes[] = {SYNCBN_FLOAT32, SYNCBN_FLOAT16, SYNCBN_BFLOAT16, SYNCBN_FLOAT64};

// All in turn. Each round begins one later than the one before, so that no other loop keeps in step with it.
constexpr int32_t dtype_of_turn(int turn) {
  constexpr int kCount = std::size(kDtypes);
  return kDtypes[(turn + turn / kCount) % kCount];
}

const char *name_of(int32_t dtype);
int64_t bytes_of(int32_t dtype);
// Of gamma, the moving statistics and their like.
int32_t parameter_of(int32_t dtype);
// Half a unit in the last place of what a dtype is computed with, relative.
double half_ulp(int32_t dtype);

// The nearest number that the dtype has, to even.
double rounded(int32_t dtype, long double value);
std::vector<double> rounded(int32_t dtype, std::vector<double> values);

// Numbers that the dtype has, as the bytes of a tensor, and back.
std::vector<unsigned char> encode(int32_t dtype, const std::vector<double> &values);
std::vector<double> decode(int32_t dtype, const std::vector<unsigned char> &bytes);

}  // namespace test

#endif
