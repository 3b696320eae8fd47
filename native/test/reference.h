// What should the kernels compute? The header's formulas as plain float64 loops, and how far a kernel may be off.
//
// Each operation is judged by itself: from the very rows and saved values that the kernel under test was given. Errors
// so do not pile up, and every tolerance is derived, with u = 2^-24, half a unit in the last place of float32:
//   float32 sums      kRoundings * u * sum of the magnitudes of the terms        (backend.h)
//   y, dx             a few u for each float32 rounding of a term, see the functions
//   float64 values    1e-12, thousands of their roundings
// where x - mean is compared, the mean is a pair of floats: its low part, at most u * |mean|, is a term of its own.
#ifndef SYNCBN_TEST_REFERENCE_H
#define SYNCBN_TEST_REFERENCE_H

#include <vector>

#include "replica.h"

namespace test {

constexpr double kHalfUlp = 1.0 / (1 << 24);
constexpr double kDoubleTolerance = 1e-12;
// Around the smallest normal float32, where rounding is no longer relative. Some devices flush what is below.
constexpr double kTiny = 1e-37;

struct Moments {
  double count = 0;
  double mean = 0;
  double m2 = 0;
};

// Of channel `channel` of all the given tensors together, in two passes.
Moments moments(const std::vector<const std::vector<float> *> &tensors, int64_t channels, int64_t channel);

// Of one channel.
struct Statistics {
  double count;
  double mean;
  double variance;
  double inverse;  // 1 / sqrt(variance + epsilon)
};

// What forward rows say: merged exactly as a float64 sum over ranks, no order implied.
Statistics merge(const Layer &layer, const std::vector<double> &rows, int64_t channel);

// Fails unless |got - want| <= tolerance; where `want` is not finite, unless got is not finite either.
void compare(const char *tensor, int64_t row, int64_t channel, double got, double want, double tolerance);

// After each operation: what the replica holds, against what its inputs ask for.
void check_stats(const Layer &layer, int32_t rank, const Replica &replica);
// statistics: what the replica should have used, per channel.
void check_normalize(const Layer &layer, const Replica &replica, const std::vector<Statistics> &statistics);
void check_moving(const Layer &layer, const Replica &replica, const std::vector<Statistics> &statistics);
void check_backward_reduce(const Layer &layer, int32_t rank, const Replica &replica, bool rows);
// rows: after the all-reduce; empty: of an inference forward.
void check_backward_input(const Layer &layer, const Replica &replica, const std::vector<double> &rows);

}  // namespace test

#endif
