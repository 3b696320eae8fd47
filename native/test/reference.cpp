#include "reference.h"

#include <algorithm>
#include <cmath>

#include "backend.h"
#include "check.h"
#include "dtype.h"

namespace test {
namespace {

// What normalize left for backward, of one channel.
struct Saved {
  Real count, mean, inverse, r, d;
};

Real at(const std::vector<double> &values, int64_t i) { return static_cast<Real>(values[static_cast<size_t>(i)]); }
Real or_default(const std::vector<double> &values, int64_t i, Real absent) {
  return values.empty() ? absent : at(values, i);
}

std::vector<Saved> saved_of(const Layer &layer, const Replica &replica) {
  const std::vector<double> values = replica.saved.download();
  const int64_t channels = layer.channels;
  std::vector<Saved> saved;
  for (int64_t c = 0; c < channels; ++c) {
    saved.push_back({at(values, c), at(values, channels + c), at(values, 2 * channels + c),
                     at(values, 3 * channels + c), at(values, 4 * channels + c)});
  }
  return saved;
}

// Of a mean: a float64 that was rounded in each merge.
constexpr Real kMeanTolerance = 1e-15L;

// Around the smallest normal number, where rounding is no longer relative. Some devices flush what is below.
Real tiny(int32_t dtype) { return dtype == SYNCBN_FLOAT64 ? 1e-300L : 1e-37L; }

// Of a sum, relative to the sum of its terms' magnitudes. In float64 thousands of additions may follow one another.
Real sum_error(int32_t dtype) { return (dtype == SYNCBN_FLOAT64 ? 2000 : backend::kRoundings) * half_ulp(dtype); }

// Calls visit(index, counts) for each element of a channel.
template <typename Visit>
void for_each_element(const Input &input, int64_t channels, int64_t channel, const Visit &visit) {
  for (int64_t o = 0; o < input.outer; ++o) {
    for (int64_t i = 0; i < input.inner; ++i) {
      visit(input.index(channels, o, channel, i), input.counts(o, channel, i));
    }
  }
}

// |x - mean| with what the difference may be off by, in u.
Real difference_terms(int32_t dtype, Real difference, Real mean) {
  const Real low = parameter_of(dtype) == SYNCBN_FLOAT64 ? 1 : static_cast<Real>(half_ulp(dtype));
  return std::fabs(difference) + low * std::fabs(mean);
}

// A sum and the sum of its terms' magnitudes.
struct Sum {
  Real value = 0;
  Real terms = 0;

  void add(Real term, Real magnitude) {
    value += term;
    terms += std::fabs(magnitude);
  }
  void add(Real term) { add(term, term); }
};

// v of one element, the factor that gamma has in it, and how far each may be off.
struct Value {
  Real v, v_terms;
  Real factor, factor_terms;
};

Value value_of(const Layer &layer, const Input &input, const Saved &saved, int64_t channel, int64_t index) {
  const Real gamma = or_default(layer.gamma, channel, 1);
  const Real beta = or_default(layer.beta, channel, 0);
  const Real scale = or_default(input.adjust_scale, index, 1);
  const Real bias = or_default(input.adjust_bias, index, 0);
  const Real residual = or_default(input.residual, index, 0);
  const Real difference = at(input.x, index) - saved.mean;
  const Real terms = difference_terms(layer.dtype, difference, saved.mean) * std::fabs(saved.inverse * saved.r);
  Value value;
  value.factor = (difference * saved.inverse * saved.r + saved.d) * scale + bias;
  value.factor_terms = (terms + std::fabs(saved.d)) * std::fabs(scale) + std::fabs(bias);
  value.v = value.factor * gamma + beta + residual;
  value.v_terms = value.factor_terms * std::fabs(gamma) + std::fabs(beta) + std::fabs(residual);
  return value;
}

// dy behind the ReLU, which the forward's mask decides.
std::vector<double> gradient(const Layer &layer, const Replica &replica) {
  std::vector<double> g = replica.input().dy;
  if (!layer.relu) return g;
  const Bytes mask = replica.relu_mask.download_bytes();
  for (size_t i = 0; i < g.size(); ++i) g[i] = mask[i] ? g[i] : 0;
  return g;
}

// Rows of the other ranks must be zero: the all-reduce adds them.
void check_other_rows(const char *what, const std::vector<double> &rows, int64_t row_length, int32_t rank) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (static_cast<int64_t>(i) / row_length != rank) compare(what, static_cast<int64_t>(i), at(rows, i), 0, 0);
  }
}

}  // namespace

void compare(const char *what, int64_t index, Real got, Real want, Real tolerance) {
  const bool fine = std::isfinite(want) ? std::fabs(got - want) <= tolerance : !std::isfinite(got);
  CHECK(fine, "%s[%lld] is %.17Lg, want %.17Lg, tolerance %.3Lg", what, static_cast<long long>(index), got, want,
        tolerance);
}

void compare_rounded(const char *what, int64_t index, int32_t dtype, double got, Real want, Real tolerance) {
  const bool fine = std::isfinite(want)
                        ? rounded(dtype, want - tolerance) <= got && got <= rounded(dtype, want + tolerance)
                        : !std::isfinite(got);
  CHECK(fine, "%s[%lld] is %.17g, want %.17Lg rounded to %s, tolerance %.3Lg", what, static_cast<long long>(index), got,
        want, name_of(dtype), tolerance);
}

Moments moments(const std::vector<const Input *> &inputs, int64_t channels, int64_t channel) {
  Moments result;
  Real sum = 0;
  for (const Input *input : inputs) {
    for_each_element(*input, channels, channel, [&](int64_t index, bool counts) {
      if (!counts) return;
      sum += at(input->x, index);
      result.count += 1;
    });
  }
  if (result.count == 0) return result;
  result.mean = sum / result.count;
  for (const Input *input : inputs) {
    for_each_element(*input, channels, channel, [&](int64_t index, bool counts) {
      const Real difference = at(input->x, index) - result.mean;
      if (counts) result.m2 += difference * difference;
    });
  }
  return result;
}

// The terms of both sums are relative to a shift that is itself a mean of some of the values: d^2 <= 2 (x - mean)^2 + 2
// (mean - shift)^2, the second no larger than the first on average. So the terms of M2 sum up to at most 4 M2, and the
// magnitudes of those of the mean to at most 2 count * rms. A merge multiplies the error of a mean by a difference of
// means, about rms.
Real mean_tolerance(int32_t dtype, const Moments &want) {
  return 2 * sum_error(dtype) * want.rms() + kMeanTolerance * std::fabs(want.mean);
}

Real m2_tolerance(int32_t dtype, const Moments &want) {
  return 4 * sum_error(dtype) * want.m2 + want.count * want.rms() * kMeanTolerance * std::fabs(want.mean) + tiny(dtype);
}

Statistics merge(const Layer &layer, const std::vector<double> &rows, int64_t channel) {
  const int64_t channels = layer.channels;
  const auto count = [&](int32_t rank) {
    return at(rows, rank * layer.forward_row() + (layer.channel_counts ? 2 + 2 * channels + channel : 1));
  };
  const auto mean = [&](int32_t rank) { return at(rows, rank * layer.forward_row() + 2 + channel); };
  const auto m2 = [&](int32_t rank) { return at(rows, rank * layer.forward_row() + 2 + channels + channel); };
  Statistics result = {};
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    result.count += count(rank);
    if (count(rank) > 0) result.mean += count(rank) * mean(rank);
  }
  if (result.count == 0) return result;
  result.mean /= result.count;
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    const Real difference = mean(rank) - result.mean;
    if (count(rank) > 0) result.variance += m2(rank) + count(rank) * difference * difference;
  }
  result.variance /= result.count;
  return result;
}

std::vector<Statistics> merge(const Layer &layer, const std::vector<double> &rows) {
  std::vector<Statistics> statistics;
  for (int64_t c = 0; c < layer.channels; ++c) statistics.push_back(merge(layer, rows, c));
  return statistics;
}

std::vector<Statistics> moving_statistics(const Layer &layer, const State &state) {
  std::vector<Statistics> statistics;
  for (int64_t c = 0; c < layer.channels; ++c) {
    statistics.push_back({0, at(state.values[kMovingMean], c), at(state.values[kMovingVariance], c)});
  }
  return statistics;
}

void check_stats(const Layer &layer, int32_t rank, const Replica &replica) {
  const std::vector<double> rows = replica.forward_rows.download();
  check_other_rows("forward rows", rows, layer.forward_row(), rank);
  const int64_t row = rank * layer.forward_row();
  compare("forward rows, signature", rank, at(rows, row), layer.signature, 0);
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Moments want = moments({&replica.input()}, layer.channels, c);
    if (layer.channel_counts) {
      compare("count", c, at(rows, row + 2 + 2 * layer.channels + c), want.count, 0);
      compare("count of all channels", rank, at(rows, row + 1), 0, 0);
    } else {
      compare("count of all channels", rank, at(rows, row + 1), want.count, 0);
    }
    compare("mean", c, at(rows, row + 2 + c), want.mean, mean_tolerance(layer.dtype, want));
    compare("M2", c, at(rows, row + 2 + layer.channels + c), want.m2, m2_tolerance(layer.dtype, want));
  }
}

void check_saved(const Layer &layer, const Replica &replica, const std::vector<Statistics> &statistics,
                 const State &before, bool training) {
  const std::vector<Saved> saved = saved_of(layer, replica);
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Statistics &s = statistics[static_cast<size_t>(c)];
    const Saved &got = saved[static_cast<size_t>(c)];
    const Real sigma = std::sqrt(s.variance + layer.epsilon);
    compare("saved, count", c, got.count, s.count, 0);
    compare("saved, mean", c, got.mean, s.mean,
            kMeanTolerance * std::fabs(s.mean) + kDoubleTolerance * std::sqrt(s.variance));
    compare("saved, 1 / sigma", c, got.inverse, 1 / sigma, kDoubleTolerance / sigma);
    if (!std::isfinite(sigma)) continue;
    Real r = 1;
    Real d = 0;
    Real d_terms = 0;
    if (training && layer.renorm) {
      const Real limit = std::max(at(before.values[kRenormStddev], c), std::sqrt(static_cast<Real>(layer.epsilon)));
      const Real renorm_mean = at(before.values[kRenormMean], c);
      r = std::min<Real>(std::max<Real>(sigma / limit, layer.r_min), layer.r_max);
      d = std::min<Real>(std::max<Real>((s.mean - renorm_mean) / limit, -layer.d_max), layer.d_max);
      d_terms = (std::fabs(s.mean) + std::fabs(renorm_mean)) / limit;
    }
    compare("saved, r", c, got.r, r, kDoubleTolerance * std::fabs(r));
    compare("saved, d", c, got.d, d, kDoubleTolerance * (std::fabs(d) + d_terms));
  }
}

void check_y(const Layer &layer, const Replica &replica) {
  const Input &input = replica.input();
  const std::vector<double> y = replica.y().download();
  const std::vector<Saved> saved = saved_of(layer, replica);
  const Bytes mask = replica.relu_mask.download_bytes();
  const bool poisoned = std::all_of(mask.begin(), mask.end(), [](unsigned char byte) { return byte == 0xff; });
  CHECK(layer.relu || poisoned, "relu_mask was written without relu");
  // Rounded: the difference, the factor, their product, the offset, the sum; and what the options add.
  const Real roundings = 5 + (input.adjust_scale.empty() ? 0 : 4) + (input.residual.empty() ? 0 : 1);
  for (int64_t c = 0; c < layer.channels; ++c) {
    for_each_element(input, layer.channels, c, [&](int64_t index, bool) {
      const Value value = value_of(layer, input, saved[static_cast<size_t>(c)], c, index);
      const Real tolerance = roundings * half_ulp(layer.dtype) * value.v_terms + tiny(layer.dtype);
      const double got = y[static_cast<size_t>(index)];
      if (!layer.relu) {
        compare_rounded("y", index, layer.dtype, got, value.v, tolerance);
        return;
      }
      const int positive = mask[static_cast<size_t>(index)];
      CHECK(positive == 0 || positive == 1, "relu_mask[%lld] is %d", static_cast<long long>(index), positive);
      if (std::isnan(value.v)) {
        CHECK(std::isnan(got) && !positive, "y[%lld] is %g, relu_mask is %d; want NaN and 0",
              static_cast<long long>(index), got, positive);
      } else {
        // Where the sign of v is open, y and the mask still agree; a positive v may round to 0.
        const Real clear = value.v - (value.v > 0 ? tolerance : -tolerance);
        if (clear * value.v > 0) compare("relu_mask", index, positive, value.v > 0, 0);
        CHECK(positive || got == 0, "y[%lld] is %g where the mask is 0", static_cast<long long>(index), got);
        compare_rounded("y", index, layer.dtype, got, positive ? value.v : 0, positive ? tolerance : 0);
      }
    });
  }
}

void check_state(const Layer &layer, const State &before, const State &after,
                 const std::vector<Statistics> &statistics) {
  const int32_t parameter = parameter_of(layer.dtype);
  const double decay = layer.cumulative ? 1.0 / static_cast<double>(before.updates + 1) : layer.decay;
  bool any = false;
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Statistics &s = statistics[static_cast<size_t>(c)];
    const auto check = [&](int which, Real want, Real terms) {
      compare_rounded(kStateNames[which], c, parameter, after.values[which][static_cast<size_t>(c)], want,
                      kDoubleTolerance * terms);
    };
    const auto check_step = [&](int which, Real towards, Real decay) {
      const Real old = at(before.values[which], c);
      check(which, old + (towards - old) * decay, std::fabs(old) + std::fabs(towards));
    };
    if (s.count == 0) {
      for (int which = 0; which < kStates; ++which) check(which, at(before.values[which], c), 0);
      continue;
    }
    any = true;
    check_step(kMovingMean, s.mean, decay);
    if (!layer.renorm) {
      const bool unbiased = layer.unbiased && s.count > 1;
      check_step(kMovingVariance, unbiased ? s.variance * s.count / (s.count - 1) : s.variance, decay);
      for (const int which : {kMovingStddev, kRenormMean, kRenormStddev}) check(which, at(before.values[which], c), 0);
      continue;
    }
    const Real sigma = std::sqrt(s.variance + layer.epsilon);
    check_step(kMovingStddev, sigma, decay);
    check_step(kRenormMean, s.mean, layer.renorm_decay);
    check_step(kRenormStddev, sigma, layer.renorm_decay);
    // From the stored deviation, or from the one before it was rounded.
    const Real stddev = at(after.values[kMovingStddev], c);
    check(kMovingVariance, std::max<Real>(stddev * stddev - layer.epsilon, 0),
          stddev * stddev * (1 + 2 * half_ulp(layer.dtype) / kDoubleTolerance));
  }
  CHECK(after.updates == before.updates + any, "updates went from %lld to %lld", static_cast<long long>(before.updates),
        static_cast<long long>(after.updates));
}

void check_backward_reduce(const Layer &layer, int32_t rank, const Replica &replica, bool with_rows) {
  const Input &input = replica.input();
  const std::vector<Saved> saved = saved_of(layer, replica);
  const std::vector<double> g = gradient(layer, replica);
  const std::vector<double> gamma_grad = replica.gamma_grad.download();
  const std::vector<double> beta_grad = replica.beta_grad.download();
  const std::vector<double> rows = with_rows ? replica.backward_rows.download() : std::vector<double>();
  const int64_t row = rank * layer.backward_row();
  if (with_rows) {
    check_other_rows("backward rows", rows, layer.backward_row(), rank);
    compare("backward rows, signature", rank, at(rows, row), layer.signature, 0);
  }
  if (!input.residual.empty()) {
    const std::vector<double> dresidual = replica.dresidual().download();
    for (int64_t i = 0; i < static_cast<int64_t>(g.size()); ++i) compare("dresidual", i, at(dresidual, i), at(g, i), 0);
  }
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Saved &s = saved[static_cast<size_t>(c)];
    Sum dy, dy_xhat, beta, gamma;
    for_each_element(input, layer.channels, c, [&](int64_t index, bool counts) {
      if (!counts && input.dy[static_cast<size_t>(index)] == 0) return;
      const Real a = or_default(input.adjust_scale, index, 1) * at(g, index);
      const Real difference = at(input.x, index) - s.mean;
      const Value value = value_of(layer, input, s, c, index);
      dy.add(a);
      dy_xhat.add(a * difference * s.inverse, a * difference_terms(layer.dtype, difference, s.mean) * s.inverse);
      beta.add(at(g, index));
      gamma.add(at(g, index) * value.factor, at(g, index) * value.factor_terms);
    });
    const Real relative = sum_error(layer.dtype);
    const Real least = tiny(layer.dtype);
    const int32_t parameter = parameter_of(layer.dtype);
    if (with_rows) {
      compare("sum_dy", c, at(rows, row + 1 + c), dy.value, relative * dy.terms + least);
      compare("sum_dy_xhat", c, at(rows, row + 1 + layer.channels + c), dy_xhat.value,
              relative * dy_xhat.terms + least);
    }
    const auto index = static_cast<size_t>(c);
    compare_rounded("beta_grad", c, parameter, beta_grad[index], beta.value, relative * beta.terms + least);
    compare_rounded("gamma_grad", c, parameter, gamma_grad[index], gamma.value, relative * gamma.terms + least);
  }
}

void check_backward_input(const Layer &layer, const Replica &replica, const std::vector<double> &rows) {
  const Input &input = replica.input();
  const std::vector<Saved> saved = saved_of(layer, replica);
  const std::vector<double> g = gradient(layer, replica);
  const std::vector<double> dx = replica.dx().download();
  // Rounded: the factors, the difference, the products, the offset, two sums; and A * g.
  const Real roundings = 6 + (input.adjust_scale.empty() ? 0 : 2);
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Saved &s = saved[static_cast<size_t>(c)];
    const Real factor = s.inverse * s.r * or_default(layer.gamma, c, 1);
    Sum mean_dy, mean_dy_xhat;
    for (int64_t row = 0; row < static_cast<int64_t>(rows.size()) && s.count > 0; row += layer.backward_row()) {
      mean_dy.add(at(rows, row + 1 + c) / s.count);
      mean_dy_xhat.add(at(rows, row + 1 + layer.channels + c) / s.count);
    }
    for_each_element(input, layer.channels, c, [&](int64_t index, bool counts) {
      const Real a = or_default(input.adjust_scale, index, 1) * at(g, index);
      Real want = a;
      Real terms = std::fabs(a);
      if (counts && !rows.empty()) {
        const Real difference = at(input.x, index) - s.mean;
        want -= mean_dy.value + difference * s.inverse * mean_dy_xhat.value;
        terms += mean_dy.terms + difference_terms(layer.dtype, difference, s.mean) * s.inverse * mean_dy_xhat.terms;
      }
      compare_rounded("dx", index, layer.dtype, dx[static_cast<size_t>(index)], factor * want,
                      roundings * half_ulp(layer.dtype) * std::fabs(factor) * terms + tiny(layer.dtype));
    });
  }
}

}  // namespace test
