// Whole steps over many shapes and dtypes; the other options are drawn, so that every shape meets several of them.
#include "backend.h"
#include "check.h"
#include "dtype.h"
#include "step.h"

namespace test {
namespace {

// Multiples of 8, of 4, of 2 and of 1: so wide are the units of kernels at most. 72 leaves a part of a tile.
constexpr int64_t kChannels[] = {1, 3, 4, 6, 72, 100, 257};
constexpr int64_t kInners[] = {1, 2, 3, 4, 7, 49, 64, 196, 1000};
constexpr int64_t kOuters[] = {0, 1, 2, 3, 5, 8, 17, 63, 64, 65, 129, 1000, 4099};

// `outer` on `ranks` ranks: unevenly, with an empty rank from the third on. Some ranks have another inner extent.
std::vector<std::array<int64_t, 2>> split(int64_t outer, int64_t inner, int ranks, Random &random) {
  const int64_t other = random.chance(4) ? std::max<int64_t>(inner / 2, 0) : inner;
  switch (ranks) {
    case 1:
      return {{outer, inner}};
    case 2:
      return {{outer / 3, inner}, {outer - outer / 3, other}};
    case 3:
      return {{outer / 2, other}, {0, inner}, {outer - outer / 2, inner}};
    default:
      return {{0, inner}, {outer / 4, inner}, {outer / 2, other}, {outer - outer / 4 - outer / 2, inner}};
  }
}

Config draw(int32_t dtype, int64_t channels, int64_t outer, int64_t inner, Random &random) {
  constexpr double kEpsilons[] = {1e-3, 1e-5, 1};
  constexpr double kDecays[] = {0.1, 0.01, 1, 0};
  constexpr double kOffsets[] = {0, 1, 100, 10000};
  constexpr double kClips[][3] = {{-kInfinity, kInfinity, kInfinity}, {0.8, 1.25, 0.3}, {2, 0.5, -1}};
  constexpr Masked kMasks[] = {Masked::kNothing,  Masked::kNothing,    Masked::kNothing,         Masked::kRows,
                               Masked::kChannels, Masked::kEverywhere, Masked::kSharedByChannels};
  constexpr Over kOvers[] = {Over::kNothing, Over::kX, Over::kResidual};
  Config config(channels, split(outer, inner, 1 + random.below(4), random));
  Layer &layer = config.layer;
  layer.dtype = dtype;
  layer.decay = random.one_of(kDecays);
  layer.epsilon = random.one_of(kEpsilons);
  layer.unbiased = random.chance(3);
  layer.cumulative = random.chance(3);
  layer.renorm = random.chance(3);
  const auto &clip = kClips[random.below(3)];
  layer.r_min = clip[0];
  layer.r_max = clip[1];
  layer.d_max = clip[2];
  layer.relu = random.chance(2);
  config.gamma = !random.chance(4);
  config.beta = !random.chance(4);
  config.residual = random.chance(3);
  config.adjustment = random.chance(4);
  config.masked = random.one_of(kMasks);
  layer.channel_counts = config.masked == Masked::kChannels || config.masked == Masked::kEverywhere || random.chance(4);
  layer.relu_again = layer.relu && !config.residual && random.chance(2);
  config.offset = random.one_of(kOffsets);
  config.placement.y = random.one_of(kOvers);
  if (!config.residual && config.placement.y == Over::kResidual) config.placement.y = Over::kNothing;
  config.placement.dx_over_dy = random.chance(3);
  config.placement.dresidual_over_dy = random.chance(3);
  config.placement.misaligned = random.chance(2) ? 1 + random.below(7) : 0;
  config.seed = random.bits();
  return config;
}

}  // namespace

TEST(sweep) {
  int number = 0;
  int ran = 0;
  for (const int64_t channels : kChannels) {
    for (const int64_t inner : kInners) {
      for (int turn = 0; turn < 4; ++turn) {
        Random random(static_cast<uint64_t>(++number));
        if (number % backend::kSweepStride != 0) continue;
        // Some are so large that there is more than one task or wave of blocks.
        const int64_t most = backend::kMaxElements * (random.chance(12) ? 6 : 1);
        int64_t outer = random.one_of(kOuters);
        while (outer > 1 && outer * channels * inner > most) outer = outer / 2 | 1;
        const Config config = draw(kDtypes[(number / 4 + turn) % std::size(kDtypes)], channels, outer, inner, random);
        const Context context("%s", config.text().c_str());
        Step step(config);
        step.forward();
        if (random.chance(3)) step.recompute();
        step.backward();
        if (random.chance(3)) step.infer();
        ++ran;
      }
    }
  }
  CHECK(ran >= 40, "only %d cases", ran);
}

}  // namespace test
