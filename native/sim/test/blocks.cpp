// Do the threads of a block meet as on a GPU, and is it said where they do not?
#include "check.h"

using namespace syncbn;
using namespace test;

namespace {

// ---- barriers

struct SumParams {
  const float *x;
  double *sums;  // one a block
  int count;
};

__global__ void tree_sum(SumParams p) {
  __shared__ double part[128];
  const int t = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  double sum = 0;
  for (int i = static_cast<int>(blockIdx.x) * threads + t; i < p.count; i += static_cast<int>(gridDim.x) * threads) {
    sum += static_cast<double>(__ldg(p.x + i));
  }
  part[t] = sum;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) part[t] += part[t + half];
  }
  if (t == 0) p.sums[blockIdx.x] = part[0];
}

TEST(barriers_hold_in_every_order) {
  in_every_order([] {
    Buffer<float> x(1000);
    for (size_t i = 0; i < x.host.size(); ++i) x.host[i] = static_cast<float>(i);
    OK(x.upload());
    Buffer<double> sums(5);
    OK(launch(tree_sum, dim3(5), dim3(16, 8), nullptr, SumParams{x.device, sums.device, 1000}));
    double total = 0;
    for (double sum : sums.download()) total += sum;
    CHECK_EQUAL(total, 499500.0);
  });
}

struct VoteParams {
  int *results;  // [3]
};

__global__ void votes(VoteParams p) {
  const int odd = static_cast<int>(threadIdx.x % 2);
  const int some = __syncthreads_or(threadIdx.x == 7), all = __syncthreads_and(odd), count = __syncthreads_count(odd);
  if (threadIdx.x == 0) p.results[0] = some, p.results[1] = all, p.results[2] = count;
}

TEST(barriers_count_votes) {
  Buffer<int> results(3);
  OK(launch(votes, dim3(1), dim3(50), nullptr, VoteParams{results.device}));
  results.download();
  CHECK_EQUAL(results.host[0], 1);
  CHECK_EQUAL(results.host[1], 0);
  CHECK_EQUAL(results.host[2], 25);
}

struct ShiftParams {
  int *out;  // [threads]
  bool barrier;
};

// Each thread reads what its right neighbour wrote.
__global__ void shift(ShiftParams p) {
  __shared__ int cells[64];
  const unsigned t = threadIdx.x;
  cells[t] = static_cast<int>(t) + 1;
  if (p.barrier) __syncthreads();
  p.out[t] = cells[(t + 1) % blockDim.x];
}

TEST(missing_barrier_gives_wrong_results) {
  in_every_order([] {
    Buffer<int> out(64);
    for (bool barrier : {true, false}) {
      OK(launch(shift, dim3(1), dim3(64), nullptr, ShiftParams{out.device, barrier}));
      out.download();
      int wrong = 0;
      for (int t = 0; t < 64; ++t) wrong += out.host[static_cast<size_t>(t)] != (t + 1) % 64 + 1;
      if (barrier) CHECK_EQUAL(wrong, 0);
      if (!barrier) CHECK(wrong > 0);
    }
  });
}

struct RankParams {
  unsigned *ranks;  // [threads]: which thread came when
  unsigned *count;
};

__global__ void rank_threads(RankParams p) { p.ranks[atomicAdd(p.count, 1u)] = threadIdx.x; }

std::vector<unsigned> order_of_threads(sim::Order order) {
  Scope scope;
  sim::settings().order = order;
  Buffer<unsigned> ranks(64), count{0u};
  OK(launch(rank_threads, dim3(1), dim3(64), nullptr, RankParams{ranks.device, count.device}));
  return ranks.download();
}

TEST(threads_run_in_the_order_that_was_asked_for) {
  const std::vector<unsigned> up = order_of_threads(sim::Order::kAscending);
  const std::vector<unsigned> down = order_of_threads(sim::Order::kDescending);
  const std::vector<unsigned> drawn = order_of_threads(sim::Order::kRandom);
  for (unsigned i = 0; i < 64; ++i) CHECK(up[i] == i && down[i] == 63 - i);
  CHECK(drawn != up && drawn != down);
  CHECK(drawn != order_of_threads(sim::Order::kRandom));
}

struct Nothing {};

__global__ void divergent_barriers(Nothing) {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void barrier_and_shuffle(Nothing) {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __shfl_sync(~0u, 1, 0);
  }
}

__global__ void half_warp_shuffle(Nothing) {
  if (threadIdx.x % 32 < 16) __shfl_xor_sync(~0u, 1.0f, 1);
  __syncthreads();
}

__global__ void reads_absent_lane(Nothing) {
  if (threadIdx.x < 16) __shfl_sync(0xffffu, 1, 20);
}

__global__ void masks_differ(Nothing) { __syncwarp(threadIdx.x == 3 ? 0xffffffffu : 0xfffffffeu | (threadIdx.x == 0)); }

__global__ void not_in_its_mask(Nothing) {
  if (threadIdx.x == 5) __ballot_sync(0xfu, 1);
}

TEST(divergence_is_reported) {
  const auto failure = [](void (*kernel)(Nothing)) {
    OK(launch(kernel, dim3(1), dim3(64), nullptr, Nothing{}));
    CHECK_EQUAL(static_cast<int>(cudaDeviceSynchronize()), static_cast<int>(cudaErrorLaunchFailure));
    return take_failure(0);
  };
  in_every_order([&] {
    CHECK_CONTAINS(failure(divergent_barriers), "different barriers");
    const std::string mixed = failure(barrier_and_shuffle);
    CHECK_CONTAINS(mixed, "deadlock");
    CHECK_CONTAINS(mixed, "16 threads at __syncthreads");
    CHECK_CONTAINS(mixed, "at __shfl_sync");
    CHECK_CONTAINS(failure(half_warp_shuffle), "at __shfl_xor_sync");
    CHECK_CONTAINS(failure(reads_absent_lane), "reads lane 20, which does not take part");
    CHECK(!failure(masks_differ).empty());
    CHECK_CONTAINS(failure(not_in_its_mask), "lacks its own lane 5");
  });
}

}  // namespace
