// What the options of the layer do where a single step on plain numbers does not show it.
#include <cmath>

#include "backend.h"
#include "check.h"
#include "dtype.h"
#include "step.h"

namespace test {
namespace {

constexpr double kClips[][3] = {{-kInfinity, kInfinity, kInfinity}, {0.9, 1.1, 0.1}, {2, 0.5, kInfinity}, {0, 3, -1}};

double at(const std::vector<double> &values, int64_t i) { return values[static_cast<size_t>(i)]; }

}  // namespace

// The shapes have more blocks than a simulated device runs at a time: all of them must see the old state.
TEST(renorm_takes_several_steps) {
  constexpr int64_t kShapes[][3] = {{700, 5, 1}, {40, 257, 1}, {6, 8, 200}, {3, 150, 16}};
  int turn = 0;
  for (const auto &[outer, channels, inner] : kShapes) {
    for (const auto &clip : kClips) {
      Config config(channels, {{outer / 3, inner}, {outer - outer / 3, inner}});
      config.layer.dtype = dtype_of_turn(++turn);
      config.layer.renorm = true;
      config.layer.r_min = clip[0];
      config.layer.r_max = clip[1];
      config.layer.d_max = clip[2];
      const Context context("%s", config.text().c_str());
      Step step(config);
      step.forward();
      const Context second("second step");
      step.run();
    }
  }
}

// Numbers of the real layer: the case T44 of the specification.
TEST(renorm_is_that_of_keras) {
  constexpr int64_t kChannels = 3;
  State state;
  state.values = {std::vector<double>{0, 0, 0}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
  for (int t = 0; t < 5; ++t) {
    Config config(kChannels, {{4, 1}});
    config.layer.dtype = SYNCBN_FLOAT64;
    config.layer.renorm = true;
    config.layer.decay = 1 - 0.99;
    config.layer.renorm_decay = 1 - 0.8;
    config.layer.r_min = 0.9;
    config.layer.r_max = 1.1;
    config.layer.d_max = 0.1;
    config.beta = config.gamma = false;
    config.edit = [t](std::vector<Input> &inputs) {
      for (int k = 0; k < 12; ++k) inputs[0].x[static_cast<size_t>(k)] = (7 * k + 5 * t) % 11 / 11.0;
    };
    Step step(config);
    Replica &replica = *step.replicas[0];
    replica.set_state(state);
    replica.normalize(step.reduce_forward());
    state = replica.state();
    if (t < 4) continue;
    // There gamma is 2 and beta 3.
    constexpr double kY[] = {5.50592425, 5.37921209, 1.61445842};
    constexpr double kState[kStates][kChannels] = {{0, 0, 0},
                                                   {0.918022332, 0.923875108, 0.924001578},
                                                   {0.958656525, 0.961704272, 0.961770023},
                                                   {0.354487273, 0.301687273, 0.280407273},
                                                   {0.420135525, 0.471419509, 0.493161553}};
    const std::vector<double> y = replica.y().download();
    for (int64_t c = 0; c < kChannels; ++c) {
      compare("y", c, 2 * at(y, c) + 3, kY[c], 1e-8);
      for (size_t which = kMovingVariance; which < kStates; ++which) {
        compare(kStateNames[which], c, at(state.values[which], c), kState[which][c], 1e-9);
      }
    }
  }
}

// x has few values, and beta is such that v is close to 0 for one of them, on either side of it, or exactly where gamma
// is 0. The backward pass must come to the decisions of forward, whether it reads them or computes v again.
TEST(relu_decides_the_same_again) {
  constexpr int64_t kShapes[][3] = {{60, 100, 1}, {12, 257, 1}, {20, 5, 7}, {2, 40, 64}, {3, 5, 196}};
  constexpr double kValues[] = {-1.5, -0.75, 0, 0.625, 1.75};
  int turn = 0;
  for (const auto &[outer, channels, inner] : kShapes) {
    for (const int32_t dtype : kDtypes) {
      const bool renorm = ++turn % 2 != 0;
      const bool adjustment = turn / 2 % 2 != 0;
      Config config(channels, {{outer, inner}});
      config.layer.dtype = dtype;
      config.layer.relu = config.layer.relu_again = true;
      config.layer.renorm = renorm;
      config.adjustment = adjustment;
      config.edit = [&, outer = outer, channels = channels, inner = inner](std::vector<Input> &inputs) {
        Input &input = inputs[0];
        Random random(7);
        for (size_t i = 0; i < input.x.size(); ++i) {
          input.x[i] = random.one_of(kValues);
          // The same for all values of a channel, so that they all have the same v.
          if (adjustment) input.adjust_scale[i] = input.adjust_bias[i] = 0.75;
        }
        if (outer > 3) input.x[static_cast<size_t>((channels - 1) * inner)] = kNan;
      };
      for (int64_t c = 0; c < channels; ++c) config.layer.gamma.push_back(static_cast<double>(c % 4) * 0.375);
      config.layer.beta.assign(static_cast<size_t>(channels), 0);
      const Context context("%s", config.text().c_str());
      Step first(config);
      first.forward();
      const std::vector<double> saved = first.replicas[0]->saved.download();
      for (int64_t c = 0; c < channels - 1; ++c) {
        const double xhat = (kValues[1 + c % 3] - at(saved, channels + c)) * at(saved, 2 * channels + c);
        const double factor = xhat * at(saved, 3 * channels + c) + at(saved, 4 * channels + c);
        const double adjusted = adjustment ? factor * 0.75 + 0.75 : factor;
        config.layer.beta[static_cast<size_t>(c)] = rounded(parameter_of(dtype), -adjusted * at(config.layer.gamma, c));
      }
      Step step(config);
      step.forward();
      step.recompute();
      Replica &replica = *step.replicas[0];
      const Bytes mask = replica.relu_mask.download_bytes();
      // The forward's decisions, applied to dy by the operation that reads them and by the one that does not.
      for (const bool again : {false, true}) {
        syncbn_backward_reduce_args args = replica.backward_reduce_args();
        args.relu_mask = again ? 0 : replica.relu_mask.address();
        args.dresidual = replica.dresidual().address();
        CHECK(backend::backward_reduce(&args) == SYNCBN_OK, "%s", backend::last_error());
        const std::vector<double> g = replica.dresidual().download();
        for (size_t i = 0; i < g.size(); ++i) {
          const double want = mask[i] ? replica.input().dy[i] : 0;
          CHECK(g[i] == want, "%s: g[%zu] is %g, want %g", again ? "again" : "mask", i, g[i], want);
        }
      }
      step.backward();
    }
  }
}

// With mean 0, sigma 1 and gamma 1.5, half of all y and dx lie in the middle between two 16-bit numbers.
TEST(ties_round_to_even) {
  constexpr int64_t kShapes[][2] = {{1, 1}, {5, 1}, {64, 1}, {5, 7}, {2, 300}};
  for (const auto &[channels, inner] : kShapes) {
    for (const int32_t dtype : {SYNCBN_FLOAT16, SYNCBN_BFLOAT16}) {
      Config config(channels, {{300 / inner + 1, inner}});
      config.layer.dtype = dtype;
      config.layer.epsilon = 0;
      config.beta = false;
      config.layer.gamma.assign(static_cast<size_t>(channels), 1.5);
      config.edit = [dtype](std::vector<Input> &inputs) {
        Random random(3);
        const int ulps = dtype == SYNCBN_FLOAT16 ? 1024 : 128;
        for (auto *values : {&inputs[0].x, &inputs[0].dy}) {
          for (double &value : *values) value = (random.chance(2) ? -1 : 1) * (1 + random.below(ulps) * 1.0 / ulps);
        }
      };
      const Context context("%s", config.text().c_str());
      Step step(config);
      State state = step.layer.state;
      state.values[kMovingMean].assign(static_cast<size_t>(channels), 0);
      state.values[kMovingVariance].assign(static_cast<size_t>(channels), 1);
      Replica &replica = *step.replicas[0];
      replica.set_state(state);
      replica.infer();
      replica.backward_input_of_inference();
      const std::vector<double> y = replica.y().download();
      const std::vector<double> dx = replica.dx().download();
      for (size_t i = 0; i < y.size(); ++i) {
        compare("y", static_cast<int64_t>(i), y[i], rounded(dtype, replica.input().x[i] * 1.5), 0);
        compare("dx", static_cast<int64_t>(i), dx[i], rounded(dtype, replica.input().dy[i] * 1.5), 0);
      }
    }
  }
}

// The unbiased variance of one element would be 0 / 0.
TEST(unbiased_variance) {
  for (const int64_t outer : {1, 2, 3, 30}) {
    for (const int32_t dtype : kDtypes) {
      Config config(7, {{outer, 1}, {0, 1}});
      config.layer.dtype = dtype;
      config.layer.unbiased = true;
      check_step(config);
    }
  }
}

// With updates from 0, the state after k steps is the average of their statistics.
TEST(cumulative_average) {
  Config config(5, {{9, 4}, {2, 4}});
  config.layer.cumulative = true;
  std::vector<Statistics> sum(5, Statistics{0, 0, 0});
  State state;
  for (int k = 1; k <= 4; ++k) {
    config.seed = static_cast<uint64_t>(k);
    config.offset = k;
    Step step(config);
    if (k == 1) {
      state = step.layer.state;
      state.updates = 0;
    }
    for (const auto &replica : step.replicas) replica->set_state(state);
    step.forward();
    state = step.replicas[1]->state();
    const std::vector<Statistics> statistics = merge(step.layer, step.replicas[1]->forward_rows.download());
    for (size_t c = 0; c < sum.size(); ++c) {
      sum[c].mean += statistics[c].mean;
      sum[c].variance += statistics[c].variance;
      const auto channel = static_cast<int64_t>(c);
      compare("moving_mean", channel, state.values[kMovingMean][c], sum[c].mean / k, 1e-5);
      compare("moving_variance", channel, state.values[kMovingVariance][c], sum[c].variance / k, 1e-5);
    }
    CHECK(state.updates == k, "updates is %lld after %d steps", static_cast<long long>(state.updates), k);
  }
}

}  // namespace test
