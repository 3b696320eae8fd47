// Do the lanes of a warp exchange values as on a GPU?
#include "check.h"

using namespace syncbn;
using namespace test;

namespace {

struct ShuffleParams {
  double *out;  // [4][threads]
  int operand, width;
};

template <typename T>
__global__ void shuffles(ShuffleParams p) {
  const unsigned t = threadIdx.x, threads = blockDim.x;
  const T value = static_cast<T>(t * 3 + 1);
  p.out[t] = static_cast<double>(__shfl_sync(~0u, value, p.operand, p.width));
  p.out[threads + t] = static_cast<double>(__shfl_up_sync(~0u, value, static_cast<unsigned>(p.operand), p.width));
  p.out[2 * threads + t] = static_cast<double>(__shfl_down_sync(~0u, value, static_cast<unsigned>(p.operand), p.width));
  p.out[3 * threads + t] = static_cast<double>(__shfl_xor_sync(~0u, value, p.operand, p.width));
}

template <typename T>
void check_shuffles(int operand, int width) {
  constexpr int kThreads = 96;
  Buffer<double> out(4 * kThreads);
  OK(launch(shuffles<T>, dim3(1), dim3(kThreads), nullptr, ShuffleParams{out.device, operand, width}));
  out.download();
  for (int t = 0; t < kThreads; ++t) {
    const int lane = t % 32, first = lane / width * width, last = first + width;
    const int sources[] = {first + operand % width, lane - operand >= first ? lane - operand : lane,
                           lane + operand < last ? lane + operand : lane,
                           (lane ^ operand) < last ? lane ^ operand : lane};
    for (int kind = 0; kind < 4; ++kind) {
      CHECK_EQUAL(out.host[static_cast<size_t>(kind * kThreads + t)], (t - lane + sources[kind]) * 3.0 + 1.0);
    }
  }
}

TEST(shuffles_follow_cuda) {
  in_every_order([] {
    for (int width : {32, 16, 4, 1}) {
      for (int operand : {0, 1, 3, 16}) {
        check_shuffles<int>(operand, width);
        check_shuffles<double>(operand, width);
      }
    }
    check_shuffles<float>(5, 8);
    check_shuffles<unsigned long long>(5, 8);
  });
}

struct BallotParams {
  unsigned *out;  // [threads]
};

// Two halves of a warp vote apart; the lanes above 40 have left.
__global__ void ballots(BallotParams p) {
  const unsigned t = threadIdx.x, mask = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  if (t >= 40) return;
  p.out[t] = __ballot_sync(mask, t % 4 == 0);
}

TEST(ballots_follow_cuda) {
  in_every_order([] {
    Buffer<unsigned> out(40);
    OK(launch(ballots, dim3(1), dim3(64), nullptr, BallotParams{out.device}));
    out.download();
    CHECK_EQUAL(out.host[0], 0x1111u);
    CHECK_EQUAL(out.host[31], 0x11110000u);
    CHECK_EQUAL(out.host[35], 0x11u);
  });
}

}  // namespace
