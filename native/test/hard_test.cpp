// Numbers that are hard to add up.
#include <cmath>
#include <limits>

#include "step.h"

namespace test {
namespace {

// Channels on both sides of every width that some kernel treats apart.
constexpr int64_t kChannels[] = {1, 3, 64, 100, 129};

int64_t rows_for(int64_t channels) { return std::min<int64_t>(backend::kMaxElements / channels, 3000); }

}  // namespace

// What the project promises of a batch far from zero.
TEST(variance_is_right_to_1e6_at_large_offsets) {
  for (const double offset : {1e2, 1e3, 1e4}) {
    for (const int64_t channels : kChannels) {
      Config config(channels, {rows_for(channels) / 3, rows_for(channels) * 2 / 3});
      config.offset = offset;
      Step step(config);
      const std::vector<Statistics> got = step.merged(step.reduce_forward());
      for (int64_t c = 0; c < channels; ++c) {
        const Moments want = moments({&step.replicas[0]->input().x, &step.replicas[1]->input().x}, channels, c);
        const Context context("%s, %lld channels, offset %g", backend::kName, static_cast<long long>(channels), offset);
        const double variance = want.m2 / want.count;
        compare("variance", 0, c, got[static_cast<size_t>(c)].variance, variance, 1e-6 * variance);
      }
    }
  }
}

TEST(large_values) {
  for (const int64_t channels : kChannels) {
    Config config(channels, {64, rows_for(channels) / 2});
    config.scale = 2.5e17;  // up to 1e18
    check_step(config);
  }
}

// The means of the ranks are many deviations apart, and those of the rows of one rank drift.
TEST(offset_differs) {
  for (const int64_t channels : kChannels) {
    Config config(channels, {70, 50, 60});
    config.edit = [channels](std::vector<Input> &inputs) {
      for (size_t rank = 0; rank < inputs.size(); ++rank) {
        for (size_t i = 0; i < inputs[rank].x.size(); ++i) {
          const double row = static_cast<double>(i / static_cast<size_t>(channels));
          inputs[rank].x[i] += static_cast<float>(1000.0 * static_cast<double>(rank) + row);
        }
      }
    };
    check_step(config);
  }
}

// Not a value near 0: 0. Ranks whose constant is the same have the same mean, and nothing is lost in between.
TEST(constant_channels_have_no_variance) {
  for (const int64_t channels : kChannels) {
    for (const float value : {0.0f, 1.0f, 0.1f, -12345.678f, 1e18f}) {
      const Context context("%s, %lld channels of %g", backend::kName, static_cast<long long>(channels),
                            static_cast<double>(value));
      Config config(channels, {7, 0, rows_for(channels) / 2, 131});
      config.edit = [value](std::vector<Input> &inputs) {
        for (Input &input : inputs) std::fill(input.x.begin(), input.x.end(), value);
      };
      Step step(config);
      const std::vector<double> rows = step.reduce_forward();
      for (int32_t rank = 0; rank < step.layer.world_size; ++rank) {
        const double want = config.outers[static_cast<size_t>(rank)] > 0 ? static_cast<double>(value) : 0;
        for (int64_t c = 0; c < channels; ++c) {
          const size_t row = static_cast<size_t>(rank * step.layer.forward_row() + 2 + c);
          compare("mean", rank, c, rows[row], want, 0);
          compare("M2", rank, c, rows[row + static_cast<size_t>(channels)], 0, 0);
        }
      }
      Replica &replica = *step.replicas[2];
      replica.normalize(rows);
      const std::vector<float> y = replica.y();
      for (int64_t i = 0; i < replica.outer() * channels; ++i) {
        const size_t c = static_cast<size_t>(i % channels);
        compare("y", i / channels, i % channels, static_cast<double>(y[static_cast<size_t>(i)]),
                static_cast<double>(step.layer.beta[c]), 0);
      }
    }
  }
}

TEST(not_finite_values_stay_in_their_channel) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const int64_t channels : kChannels) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
      for (const int64_t at : {int64_t{0}, int64_t{5}, int64_t{66}}) {
        const int64_t bad = channels / 2;
        const Context context("row %lld, channel %lld is %g", static_cast<long long>(at), static_cast<long long>(bad),
                              static_cast<double>(value));
        Config config(channels, {40, 70});
        config.edit = [=](std::vector<Input> &inputs) {
          inputs[1].x[static_cast<size_t>(at * channels + bad)] = value;
        };
        Step step(config);
        const std::vector<double> forward = step.reduce_forward();
        std::vector<Statistics> statistics = step.merged(forward);
        CHECK(!std::isfinite(statistics[static_cast<size_t>(bad)].variance), "the variance hides it");
        step.check_whole_batch(statistics);
        for (const auto &replica : step.replicas) {
          replica->normalize(forward);
          check_normalize(step.layer, *replica, statistics);
          check_moving(step.layer, *replica, statistics);
        }
        const std::vector<double> backward = step.reduce_backward();
        for (int32_t rank = 0; rank < 2; ++rank) {
          Replica &replica = *step.replicas[static_cast<size_t>(rank)];
          check_backward_reduce(step.layer, rank, replica, true);
          replica.backward_input(backward);
          check_backward_input(step.layer, replica, backward);
        }
      }
    }
  }
}

}  // namespace test
