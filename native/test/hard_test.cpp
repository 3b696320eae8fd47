// Numbers that are hard to add up.
#include <algorithm>
#include <cmath>

#include "backend.h"
#include "check.h"
#include "dtype.h"
#include "step.h"

namespace test {
namespace {

// Channels and inner extents on both sides of every width that some kernel treats apart.
constexpr int64_t kShapes[][2] = {{1, 1}, {3, 1}, {64, 1}, {100, 1}, {129, 1}, {3, 7}, {2, 196}, {5, 1000}};

int64_t outer_for(int64_t channels, int64_t inner) {
  return std::max<int64_t>(3, std::min<int64_t>(backend::kMaxElements / channels / inner, 3000));
}

}  // namespace

// What the project promises of a batch far from zero.
TEST(variance_is_right_at_large_offsets) {
  struct {
    int32_t dtype;
    double offset, relative, y;
  } const promises[] = {
      {SYNCBN_FLOAT32, 1e2, 1e-6, 2e-6}, {SYNCBN_FLOAT32, 1e4, 1e-6, 2e-6}, {SYNCBN_FLOAT64, 1e3, 1e-12, 1e-12}};
  for (const auto &promise : promises) {
    for (const auto &[channels, inner] : kShapes) {
      const int64_t outer = outer_for(channels, inner);
      Config config(channels, {{outer / 3, inner}, {outer - outer / 3, inner}});
      config.layer.dtype = promise.dtype;
      config.offset = promise.offset;
      config.gamma = config.beta = false;
      const Context context("%s", config.text().c_str());
      Step step(config);
      const std::vector<double> rows = step.reduce_forward();
      for (int64_t c = 0; c < channels; ++c) {
        const Moments want = moments({&step.replicas[0]->input(), &step.replicas[1]->input()}, channels, c);
        const Real variance = want.m2 / want.count;
        const Real sigma = std::sqrt(variance + step.layer.epsilon);
        compare("variance", c, merge(step.layer, rows, c).variance, variance, promise.relative * variance);
        if (c > 0) continue;
        Replica &replica = *step.replicas[1];
        replica.normalize(rows);
        const std::vector<double> y = replica.y().download();
        for (int64_t o = 0; o < replica.input().outer; ++o) {
          const auto index = static_cast<size_t>(replica.input().index(channels, o, c, inner - 1));
          compare("y", o, y[index], (replica.input().x[index] - want.mean) / sigma, promise.y);
        }
      }
    }
  }
}

TEST(large_values) {
  constexpr double kScales[] = {2.5e17, 5e3, 2.5e17, 1e150};  // of each dtype; up to 4 times that, 3 deviations away
  static_assert(std::size(kScales) == std::size(kDtypes));
  int turn = 0;
  for (const auto &[channels, inner] : kShapes) {
    for (int i = 0; i < 2; ++i) {
      Config config(channels, {{3, inner}, {outer_for(channels, inner) / 2, inner}});
      config.layer.dtype = dtype_of_turn(turn++);
      config.scale = kScales[config.layer.dtype];
      check_step(config);
    }
  }
}

// The means of the ranks are many deviations apart, and those of the rows of one rank drift.
TEST(offset_differs) {
  for (const auto &[channels, inner] : kShapes) {
    Config config(channels, {{7, inner}, {50, inner}, {outer_for(channels, inner) / 3, inner}});
    config.edit = [row = channels * inner](std::vector<Input> &inputs) {
      for (size_t rank = 0; rank < inputs.size(); ++rank) {
        for (size_t i = 0; i < inputs[rank].x.size(); ++i) {
          inputs[rank].x[i] += 1000.0 * static_cast<double>(rank) + static_cast<double>(static_cast<int64_t>(i) / row);
        }
      }
    };
    check_step(config);
  }
}

// Not a value near 0: 0. Ranks whose constant is the same have the same mean, and nothing is lost in between.
TEST(constant_channels_have_no_variance) {
  constexpr double kNumbers[] = {0, 0.1, -12345.678, 6e4};
  int turn = 0;
  for (const int32_t dtype : kDtypes) {
    for (const auto &[channels, inner] : kShapes) {
      for (int i = 0; i < 2; ++i) {
        const double value = rounded(dtype, static_cast<long double>(kNumbers[turn++ * 5 / 2 % 4]));
        Config config(channels, {{7, inner}, {0, inner}, {outer_for(channels, inner) / 2, inner}, {13, inner}});
        config.layer.dtype = dtype;
        config.edit = [value](std::vector<Input> &inputs) {
          for (Input &input : inputs) std::fill(input.x.begin(), input.x.end(), value);
        };
        const Context context("all %g: %s", value, config.text().c_str());
        Step step(config);
        const std::vector<double> rows = step.reduce_forward();
        for (int64_t c = 0; c < channels; ++c) {
          const Statistics got = merge(step.layer, rows, c);
          compare("mean", c, got.mean, value, 0);
          compare("variance", c, got.variance, 0, 0);
        }
        Replica &replica = *step.replicas[2];
        replica.normalize(rows);
        const std::vector<double> saved = replica.saved.download();
        const std::vector<double> y = replica.y().download();
        for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
          compare("saved mean", static_cast<int64_t>(c), saved[static_cast<size_t>(channels) + c], value, 0);
          const size_t at = c * static_cast<size_t>(inner);
          compare("y", static_cast<int64_t>(c), y[at], rounded(dtype, step.layer.beta[c]), 0);
        }
      }
    }
  }
}

TEST(not_finite_values_stay_in_their_channel) {
  constexpr double kValues[] = {kNan, kInfinity, -kInfinity};
  constexpr int64_t kOuters[] = {0, 5, 66};
  int turn = 0;
  for (const int32_t dtype : kDtypes) {
    for (const auto &[channels, inner] : kShapes) {
      const double value = kValues[++turn % 3];
      const int64_t bad = channels / 2;
      const int64_t o = kOuters[turn / 3 % (inner > 1 ? 2 : 3)];
      Config config(channels, {{4, inner}, {inner > 1 ? 6 : 67, inner}});
      config.layer.dtype = dtype;
      config.layer.renorm = turn % 2 == 0;
      config.edit = [&, channels = channels, inner = inner](std::vector<Input> &inputs) {
        Input &input = inputs[1];
        input.x[static_cast<size_t>(input.index(channels, o, bad, inner / 2))] = value;
      };
      const Context context("%g in row %lld of channel %lld", value, static_cast<long long>(o),
                            static_cast<long long>(bad));
      check_step(config);
    }
  }
}

}  // namespace test
