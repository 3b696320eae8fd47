#include "reference.h"

#include <cmath>

namespace test {
namespace {

double at(const std::vector<float> &values, int64_t i) { return static_cast<double>(values[static_cast<size_t>(i)]); }
double at(const std::vector<double> &values, int64_t i) { return values[static_cast<size_t>(i)]; }
double or_default(const std::vector<float> &values, int64_t i, double absent) {
  return values.empty() ? absent : at(values, i);
}

// Rows of the other ranks must be zero: the all-reduce adds them.
void check_other_rows(const char *tensor, const std::vector<double> &rows, int64_t row_length, int32_t rank) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / row_length;
    if (row != rank) compare(tensor, row, static_cast<int64_t>(i) % row_length, rows[i], 0, 0);
  }
}

}  // namespace

void compare(const char *tensor, int64_t row, int64_t channel, double got, double want, double tolerance) {
  const bool fine = std::isfinite(want) ? std::fabs(got - want) <= tolerance : !std::isfinite(got);
  CHECK(fine, "%s[%lld, %lld] is %.17g, want %.17g, tolerance %.3g", tensor, static_cast<long long>(row),
        static_cast<long long>(channel), got, want, tolerance);
}

Moments moments(const std::vector<const std::vector<float> *> &tensors, int64_t channels, int64_t channel) {
  Moments result;
  double sum = 0;
  for (const auto *tensor : tensors) {
    for (size_t i = static_cast<size_t>(channel); i < tensor->size(); i += static_cast<size_t>(channels)) {
      sum += static_cast<double>((*tensor)[i]);
      result.count += 1;
    }
  }
  if (result.count == 0) return result;
  result.mean = sum / result.count;
  for (const auto *tensor : tensors) {
    for (size_t i = static_cast<size_t>(channel); i < tensor->size(); i += static_cast<size_t>(channels)) {
      const double d = static_cast<double>((*tensor)[i]) - result.mean;
      result.m2 += d * d;
    }
  }
  return result;
}

Statistics merge(const Layer &layer, const std::vector<double> &rows, int64_t channel) {
  Statistics result = {};
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    const int64_t row = rank * layer.forward_row();
    result.count += at(rows, row + 1);
    result.mean += at(rows, row + 1) * at(rows, row + 2 + channel);
  }
  if (result.count > 0) {
    result.mean /= result.count;
    for (int32_t rank = 0; rank < layer.world_size; ++rank) {
      const int64_t row = rank * layer.forward_row();
      const double d = at(rows, row + 2 + channel) - result.mean;
      result.variance += at(rows, row + 2 + layer.channels + channel) + at(rows, row + 1) * d * d;
    }
    result.variance /= result.count;
  }
  result.inverse = 1 / std::sqrt(result.variance + layer.epsilon);
  return result;
}

void check_stats(const Layer &layer, int32_t rank, const Replica &replica) {
  const std::vector<double> rows = replica.forward_rows.download();
  check_other_rows("forward rows", rows, layer.forward_row(), rank);
  const int64_t row = rank * layer.forward_row();
  compare("forward rows, signature", rank, 0, at(rows, row), layer.signature, 0);
  compare("forward rows, count", rank, 0, at(rows, row + 1), static_cast<double>(replica.outer()), 0);
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Moments want = moments({&replica.input().x}, layer.channels, c);
    const double rms = want.count > 0 ? std::sqrt(want.m2 / want.count) : 0;
    // The terms are relative to a shift that is itself a mean of some of the values: d^2 <= 2 (x - mean)^2 + 2 (mean -
    // shift)^2, the second no larger than the first on average. So the terms sum up to at most 4 M2, and their
    // magnitudes to at most 2 count * rms.
    const double relative = backend::kRoundings * kHalfUlp;
    compare("mean", rank, c, at(rows, row + 2 + c), want.mean,
            2 * relative * rms + kDoubleTolerance * std::fabs(want.mean));
    // The reference itself is off by count * (2^-53 * mean)^2 at most, its mean being a float64.
    const double reference = want.count * std::pow(1e-15 * want.mean, 2);
    compare("M2", rank, c, at(rows, row + 2 + layer.channels + c), want.m2, 4 * relative * want.m2 + reference + kTiny);
  }
}

void check_normalize(const Layer &layer, const Replica &replica, const std::vector<Statistics> &statistics) {
  const std::vector<float> y = replica.y();
  const std::vector<double> saved = replica.saved.download();
  compare("saved, count", 0, 0, saved[0], statistics[0].count, 0);
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Statistics &s = statistics[static_cast<size_t>(c)];
    const double sigma = std::sqrt(s.variance);
    compare("saved, mean", 0, c, at(saved, 1 + c), s.mean, kDoubleTolerance * (std::fabs(s.mean) + sigma));
    compare("saved, 1 / sigma", 0, c, at(saved, 1 + layer.channels + c), s.inverse, kDoubleTolerance * s.inverse);
    const double factor = s.inverse * or_default(layer.gamma, c, 1);
    const double beta = or_default(layer.beta, c, 0);
    for (int64_t row = 0; row < replica.outer(); ++row) {
      const double d = at(replica.input().x, row * layer.channels + c) - s.mean;
      // Rounded: the difference, the factor, their product, the offset, the sum.
      const double terms = std::fabs(factor) * (std::fabs(d) + kHalfUlp * std::fabs(s.mean)) + std::fabs(beta);
      compare("y", row, c, at(y, row * layer.channels + c), d * factor + beta, 5 * kHalfUlp * terms + kTiny);
    }
  }
}

void check_moving(const Layer &layer, const Replica &replica, const std::vector<Statistics> &statistics) {
  const std::vector<float> mean = replica.moving_mean.download();
  const std::vector<float> variance = replica.moving_variance.download();
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Statistics &s = statistics[static_cast<size_t>(c)];
    const auto check = [&](const char *tensor, double got, double old, double batch) {
      const double want = old + (batch - old) * layer.decay;
      // One rounding to float32.
      compare(tensor, 0, c, got, want,
              kHalfUlp * std::fabs(want) + kDoubleTolerance * (std::fabs(old) + std::fabs(batch)));
    };
    check("moving_mean", at(mean, c), at(layer.moving_mean, c), s.mean);
    check("moving_variance", at(variance, c), at(layer.moving_variance, c), s.variance);
  }
}

void check_backward_reduce(const Layer &layer, int32_t rank, const Replica &replica, bool with_rows) {
  const std::vector<double> saved = replica.saved.download();
  const std::vector<float> gamma_grad = replica.gamma_grad.download();
  const std::vector<float> beta_grad = replica.beta_grad.download();
  const std::vector<double> rows = with_rows ? replica.backward_rows.download() : std::vector<double>();
  const int64_t row = rank * layer.backward_row();
  if (with_rows) {
    check_other_rows("backward rows", rows, layer.backward_row(), rank);
    compare("backward rows, signature", rank, 0, at(rows, row), layer.signature, 0);
  }
  for (int64_t c = 0; c < layer.channels; ++c) {
    const double mean = at(saved, 1 + c);
    const double inverse = replica.outer() > 0 ? at(saved, 1 + layer.channels + c) : 0;
    double sum_dy = 0, sum_dy_xhat = 0, dy_terms = 0, dy_xhat_terms = 0;
    for (int64_t i = c; i < replica.outer() * layer.channels; i += layer.channels) {
      const double dy = at(replica.input().dy, i);
      const double d = at(replica.input().x, i) - mean;
      sum_dy += dy;
      sum_dy_xhat += dy * d * inverse;
      dy_terms += std::fabs(dy);
      dy_xhat_terms += std::fabs(dy) * (std::fabs(d) + kHalfUlp * std::fabs(mean)) * inverse;
    }
    // With slack for the float64 sums of the reference.
    const double relative = backend::kRoundings * kHalfUlp;
    const double dy_tolerance = relative * dy_terms + kTiny;
    const double dy_xhat_tolerance = relative * dy_xhat_terms + kTiny;
    if (with_rows) {
      compare("sum_dy", rank, c, at(rows, row + 1 + c), sum_dy, dy_tolerance);
      compare("sum_dy_xhat", rank, c, at(rows, row + 1 + layer.channels + c), sum_dy_xhat, dy_xhat_tolerance);
    }
    compare("beta_grad", rank, c, at(beta_grad, c), sum_dy, dy_tolerance + kHalfUlp * std::fabs(sum_dy));
    compare("gamma_grad", rank, c, at(gamma_grad, c), sum_dy_xhat,
            dy_xhat_tolerance + kHalfUlp * std::fabs(sum_dy_xhat));
  }
}

void check_backward_input(const Layer &layer, const Replica &replica, const std::vector<double> &rows) {
  const std::vector<float> dx = replica.dx();
  const std::vector<double> saved = replica.saved.download();
  for (int64_t c = 0; c < layer.channels; ++c) {
    const double mean = at(saved, 1 + c);
    const double inverse = at(saved, 1 + layer.channels + c);
    const double factor = inverse * or_default(layer.gamma, c, 1);
    double mean_dy = 0, mean_dy_xhat = 0;
    for (int64_t row = 0; row < static_cast<int64_t>(rows.size()); row += layer.backward_row()) {
      mean_dy += at(rows, row + 1 + c) / saved[0];
      mean_dy_xhat += at(rows, row + 1 + layer.channels + c) / saved[0];
    }
    for (int64_t row = 0; row < replica.outer(); ++row) {
      const int64_t i = row * layer.channels + c;
      const double dy = at(replica.input().dy, i);
      const double d = rows.empty() ? 0 : at(replica.input().x, i) - mean;
      const double want = factor * (dy - mean_dy - d * inverse * mean_dy_xhat);
      // Rounded: the factors, the difference, the products, the offset, two sums.
      const double terms =
          std::fabs(factor) * (std::fabs(dy) + std::fabs(mean_dy) +
                               (std::fabs(d) + kHalfUlp * std::fabs(mean)) * inverse * std::fabs(mean_dy_xhat));
      compare("dx", row, c, at(dx, i), want, 6 * kHalfUlp * terms + kTiny);
    }
  }
}

}  // namespace test
