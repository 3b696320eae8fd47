// What does a mask keep out, and what not?
#include <algorithm>
#include <cmath>

#include "backend.h"
#include "check.h"
#include "dtype.h"
#include "step.h"

namespace test {
namespace {

constexpr Masked kMasks[] = {Masked::kRows, Masked::kChannels, Masked::kEverywhere, Masked::kSharedByChannels};
constexpr int64_t kShapes[][2] = {{1, 1}, {5, 1}, {64, 1}, {129, 1}, {3, 49}, {70, 4}};

// All elements of an input whose mask byte is 0, by index.
template <typename Visit>
void for_each_masked(const Input &input, int64_t channels, const Visit &visit) {
  for (int64_t o = 0; o < input.outer; ++o) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < input.inner; ++i) {
        if (!input.counts(o, c, i)) visit(static_cast<size_t>(input.index(channels, o, c, i)));
      }
    }
  }
}

Config masked_config(int64_t channels, int64_t inner, Masked masked, int32_t dtype) {
  Config config(channels, {{19, inner}, {40, inner}});
  config.layer.dtype = dtype;
  config.masked = masked;
  config.layer.channel_counts = masked == Masked::kChannels || masked == Masked::kEverywhere;
  config.seed = static_cast<uint64_t>(channels);
  return config;
}

}  // namespace

// NaN and infinity behind the mask: everything else is as if they were 3, bit for bit. Their dy is 0, as behind a loss
// that is masked too.
TEST(masked_values_reach_nothing_else) {
  int turn = 0;
  for (const auto &[channels, inner] : kShapes) {
    for (const Masked masked : kMasks) {
      const int32_t dtype = dtype_of_turn(++turn);
      Config config = masked_config(channels, inner, masked, dtype);
      config.layer.relu = config.layer.relu_again = turn % 2 == 0;
      config.layer.renorm = turn % 3 == 0;
      const auto run_with = [&, channels = channels](const std::vector<double> &values) {
        config.edit = [=](std::vector<Input> &inputs) {
          size_t next = 0;
          for (Input &input : inputs) {
            for_each_masked(input, channels, [&](size_t index) {
              input.x[index] = values[next++ % values.size()];
              input.dy[index] = 0;
            });
          }
        };
        auto step = std::make_unique<Step>(config);
        step->run();
        return step;
      };
      const Context context("%s", config.text().c_str());
      const std::unique_ptr<Step> poisoned = run_with({kNan, kInfinity, -kInfinity});
      const std::unique_ptr<Step> harmless = run_with({3});
      for (size_t rank = 0; rank < 2; ++rank) {
        Replica &left = *poisoned->replicas[rank];
        Replica &right = *harmless->replicas[rank];
        CHECK(left.forward_rows.download_bytes() == right.forward_rows.download_bytes(), "forward rows differ");
        CHECK(left.backward_rows.download_bytes() == right.backward_rows.download_bytes(), "backward rows differ");
        CHECK(left.saved.download_bytes() == right.saved.download_bytes(), "saved differs");
        CHECK(left.gamma_grad.download_bytes() == right.gamma_grad.download_bytes(), "gamma_grad differs");
        CHECK(left.beta_grad.download_bytes() == right.beta_grad.download_bytes(), "beta_grad differs");
        CHECK(same_bits(left.state(), right.state()), "the states differ");
        CHECK(left.dx().download() == right.dx().download(), "dx differs");
        std::vector<double> y = left.y().download();
        std::vector<double> y_of_3 = right.y().download();
        for_each_masked(left.input(), channels, [&](size_t index) { y[index] = y_of_3[index] = 0; });
        CHECK(y == y_of_3, "y differs where elements count");
      }
    }
  }
}

// As in Keras: what is masked gets a gradient and passes it to the sums; it only has no part in the mean.
TEST(masked_gradients_count) {
  for (const auto &[channels, inner] : kShapes) {
    for (const Masked masked : kMasks) {
      Config config = masked_config(channels, inner, masked, SYNCBN_FLOAT32);
      config.adjustment = inner == 1;
      config.edit = [&, channels = channels](std::vector<Input> &inputs) {
        for (Input &input : inputs) {
          for_each_masked(input, channels, [&](size_t index) { input.dy[index] += 100; });
        }
      };
      check_step(config);
    }
  }
}

TEST(everything_masked_changes_no_state) {
  int turn = 0;
  for (const auto &[channels, inner] : kShapes) {
    for (const Masked masked : kMasks) {
      Config config = masked_config(channels, inner, masked, SYNCBN_FLOAT32);
      config.layer.renorm = ++turn * 5 / 4 % 2 == 0;
      // 1 / sigma is then infinite; elements that add nothing still do.
      const bool singular = turn % 3 == 0;
      if (singular) config.layer.epsilon = 0;
      config.edit = [singular](std::vector<Input> &inputs) {
        for (Input &input : inputs) {
          std::fill(input.mask.bytes.begin(), input.mask.bytes.end(), 0);
          if (singular) std::fill(input.dy.begin(), input.dy.end(), 0);
        }
      };
      const Context context("%s", config.text().c_str());
      Step step(config);
      step.run();
      for (const auto &replica : step.replicas) {
        CHECK(same_bits(replica->state(), step.layer.state), "the state has changed");
      }
    }
  }
}

// A channel that is masked everywhere keeps its state, while the others take their step.
TEST(masked_channel_keeps_its_state) {
  for (const auto &[channels, inner] : kShapes) {
    if (channels == 1) continue;
    for (const Masked masked : {Masked::kChannels, Masked::kEverywhere}) {
      Config config = masked_config(channels, inner, masked, SYNCBN_FLOAT64);
      config.layer.renorm = (masked == Masked::kChannels) == (inner == 1);
      config.edit = [](std::vector<Input> &inputs) {
        for (Input &input : inputs) {
          for (int64_t o = 0; o < input.outer; ++o) {
            const auto begin = input.mask.bytes.begin() + o * input.mask.outer + input.mask.channel;
            std::fill_n(begin, std::max<int64_t>(1, input.mask.inner * input.inner), 0);
          }
        }
      };
      const Context context("%s", config.text().c_str());
      Step step(config);
      step.run();
      const State after = step.replicas[0]->state();
      CHECK(after.updates == step.layer.state.updates + 1, "updates is %lld", static_cast<long long>(after.updates));
      for (const auto which : {kMovingMean, kMovingVariance}) {
        CHECK(after.values[which][1] == step.layer.state.values[which][1], "channel 1 has changed");
        CHECK(after.values[which][0] != step.layer.state.values[which][0], "channel 0 has not changed");
      }
    }
  }
}

}  // namespace test
