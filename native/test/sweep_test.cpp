// Whole steps over many shapes; the other options take turns, so that every shape meets several and every pair occurs.
#include "step.h"

namespace test {
namespace {

constexpr int64_t kChannels[] = {1, 3, 4, 5, 7, 8, 16, 63, 64, 100, 128, 129, 257, 2048};
constexpr int64_t kRows[] = {0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 130, 1000, 4099};

// `rows` rows on `ranks` ranks: unevenly, with an empty rank from the third on.
std::vector<int64_t> split(int64_t rows, int ranks) {
  switch (ranks) {
    case 1:
      return {rows};
    case 2:
      return {rows / 3, rows - rows / 3};
    case 3:
      return {rows / 2, 0, rows - rows / 2};
    default:
      return {0, rows / 4, rows / 2, rows - rows / 4 - rows / 2};
  }
}

}  // namespace

TEST(sweep) {
  constexpr double kEpsilons[] = {1e-3, 1e-5, 0, 1};
  constexpr double kDecays[] = {0.1, 0.01, 1, 0};
  constexpr double kOffsets[] = {0, 1, 100, 10000};
  int number = 0;
  int ran = 0;
  for (const int64_t channels : kChannels) {
    for (const int64_t rows : kRows) {
      if (channels * rows > backend::kMaxElements) continue;
      if (++number % backend::kSweepStride != 0) continue;
      Random random(static_cast<uint64_t>(number));
      Config config(channels, split(rows, 1 + random.below(4)));
      config.gamma = random.below(4) != 0;
      config.beta = random.below(4) != 0;
      config.decay = kDecays[random.below(4)];
      config.offset = kOffsets[random.below(4)];
      // Where every value of a channel is the same, epsilon = 0 divides by 0.
      config.epsilon = kEpsilons[random.below(rows > 2 ? 4 : 2)];
      config.placement.y_over_x = random.below(3) == 0;
      config.placement.dx_over_dy = random.below(3) == 0;
      config.placement.misaligned = random.below(3) == 0 ? 1 + random.below(3) : 0;
      config.seed = random.bits();
      check_step(config);
      ++ran;
    }
  }
  CHECK(ran >= 20, "only %d cases", ran);
}

}  // namespace test
