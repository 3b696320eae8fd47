// What should the kernels compute? The header's formulas as plain loops in long double, and how far a kernel may be
// off.
//
// Each operation is judged by itself: from the very rows and saved values that the kernel under test was given. Errors
// so do not pile up, and every tolerance is derived, with u half a unit in the last place of what the dtype is computed
// with (2^-24, for float64 2^-53):
//   sums              backend::kRoundings * u * sum of the magnitudes of the terms
//   y, dx             a few u for each rounding of a term, see the functions
//   float64 values    1e-12, thousands of their roundings
// What is rounded in the end (to 16 bits, or a float32 parameter) must be what some number within the tolerance rounds
// to. Where x - mean is compared, the mean of float32 is a pair of floats: its low part, at most u * |mean|, is a term
// of its own.
#ifndef SYNCBN_TEST_REFERENCE_H
#define SYNCBN_TEST_REFERENCE_H

#include <cmath>
#include <vector>

#include "replica.h"

namespace test {

using Real = long double;

constexpr double kDoubleTolerance = 1e-12;

struct Moments {
  Real count = 0;
  Real mean = 0;
  Real m2 = 0;

  Real rms() const { return count > 0 ? std::sqrt(m2 / count) : 0; }
};

// Of what counts in channel `channel` of all the given inputs together, in two passes.
Moments moments(const std::vector<const Input *> &inputs, int64_t channels, int64_t channel);

// How far the mean and M2 of a kernel may be off.
Real mean_tolerance(int32_t dtype, const Moments &want);
Real m2_tolerance(int32_t dtype, const Moments &want);

// Of one channel.
struct Statistics {
  Real count;
  Real mean;
  Real variance;
};

// What forward rows say.
Statistics merge(const Layer &layer, const std::vector<double> &rows, int64_t channel);
std::vector<Statistics> merge(const Layer &layer, const std::vector<double> &rows);

// What inference uses.
std::vector<Statistics> moving_statistics(const Layer &layer, const State &state);

// Fails unless |got - want| <= tolerance; where `want` is not finite, unless got is not finite either.
void compare(const char *what, int64_t index, Real got, Real want, Real tolerance);
// got is a number of the dtype: fails unless a number within the tolerance rounds to it.
void compare_rounded(const char *what, int64_t index, int32_t dtype, double got, Real want, Real tolerance);

// After each operation: what the replica holds, against what its inputs ask for. rank: of the replica.
void check_stats(const Layer &layer, int32_t rank, const Replica &replica);
// statistics: what the replica should have used; before: its state before the step, for renorm.
void check_saved(const Layer &layer, const Replica &replica, const std::vector<Statistics> &statistics,
                 const State &before, bool training);
void check_y(const Layer &layer, const Replica &replica);
void check_state(const Layer &layer, const State &before, const State &after,
                 const std::vector<Statistics> &statistics);
void check_backward_reduce(const Layer &layer, int32_t rank, const Replica &replica, bool with_rows);
// rows: after the all-reduce; empty: of an inference forward.
void check_backward_input(const Layer &layer, const Replica &replica, const std::vector<double> &rows);

}  // namespace test

#endif
