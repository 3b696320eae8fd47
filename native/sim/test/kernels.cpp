// Do grids, atomics, shared memory and the faults of kernels behave as on a GPU?
#include "check.h"
#include "sim/launch.h"

using namespace syncbn;
using namespace test;

namespace {

struct CountParams {
  unsigned *word;
};

__global__ void count(CountParams p) { atomicAdd(p.word, 1u); }

template <typename T>
__global__ void store(CountParams p) {
  atomicExch(p.word, static_cast<unsigned>(sizeof(T)));
}

struct TicketParams {
  const float *x;
  double *parts;
  unsigned *ticket;
  double *total;
  int count;
};

__global__ void last_block_sums(TicketParams p) {
  __shared__ bool last;
  double sum = 0;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < static_cast<unsigned>(p.count);
       i += gridDim.x * blockDim.x) {
    sum += static_cast<double>(p.x[i]);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(~0u, sum, static_cast<unsigned>(lanes));
  if (threadIdx.x == 0) {
    p.parts[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(p.ticket, gridDim.x - 1) == gridDim.x - 1;
    if (last) __threadfence();
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  double total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += p.parts[b];
  *p.total = total;
}

TEST(last_block_sees_all) {
  in_every_order([] {
    Buffer<float> x(999);
    for (float &value : x.host) value = 2.0f;
    OK(x.upload());
    Buffer<double> parts(7), total(1);
    Buffer<unsigned> ticket{0u};
    for (int repeat = 0; repeat < 3; ++repeat) {
      OK(launch(last_block_sums, dim3(7), dim3(32), nullptr,
                TicketParams{x.device, parts.device, ticket.device, total.device, 999}));
      CHECK_EQUAL(total.download()[0], 1998.0);
    }
  });
}

struct AtomicParams {
  unsigned *words;            // [4]
  unsigned long long *wides;  // [2]
  float *real;
};

__global__ void atomics(AtomicParams p) {
  atomicAdd(p.words, 2u);
  atomicOr(p.words + 1, 1u << threadIdx.x % 32);
  atomicCAS(p.words + 2, 0u, 5u);
  atomicExch(p.words + 3, 9u);
  atomicAdd(p.wides, 1ull << 40);
  atomicAdd(p.real, 0.5f);
}

TEST(atomics_follow_cuda) {
  Buffer<unsigned> words{0u, 0u, 0u, 0u};
  Buffer<unsigned long long> wides{0ull, 0ull};
  Buffer<float> real{0.0f};
  OK(launch(atomics, dim3(3), dim3(40), nullptr, AtomicParams{words.device, wides.device, real.device}));
  CHECK_EQUAL(words.download()[0], 240u);
  CHECK_EQUAL(words.host[1], ~0u);
  CHECK_EQUAL(words.host[2], 5u);
  CHECK_EQUAL(words.host[3], 9u);
  CHECK_EQUAL(wides.download()[0], 120ull << 40);
  CHECK_EQUAL(real.download()[0], 60.0f);
}

struct GridParams {
  int *cells;  // one a block
  int *out;    // one a block
};

__global__ void rotate(GridParams p) {
  if (threadIdx.x == 0) p.cells[blockIdx.x] = static_cast<int>(blockIdx.x) + 100;
  grid_sync();
  if (threadIdx.x == 0) p.out[blockIdx.x] = p.cells[(blockIdx.x + 1) % gridDim.x];
}

cudaError_t launch_cooperative(void (*kernel)(GridParams), unsigned blocks, unsigned threads, GridParams params) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.attrs = &attribute;
  config.numAttrs = 1;
  void *arguments[] = {&params};
  return cudaLaunchKernelExC(&config, sim::known_kernel(kernel), arguments);
}

TEST(cooperative_grids_meet) {
  Buffer<int> cells(8), out(8);
  const GridParams params = {cells.device, out.device};
  for (int repeat = 0; repeat < 5; ++repeat) {
    OK(launch_cooperative(rotate, 8, 64, params));
    out.download();
    for (int b = 0; b < 8; ++b) CHECK_EQUAL(out.host[static_cast<size_t>(b)], (b + 1) % 8 + 100);
  }
  // 4 multiprocessors of 2048 threads hold 8 blocks of 1024.
  CHECK_EQUAL(static_cast<int>(launch_cooperative(rotate, 9, 1024, params)),
              static_cast<int>(cudaErrorCooperativeLaunchTooLarge));
  OK(launch(rotate, dim3(8), dim3(64), nullptr, params));
  CHECK_EQUAL(static_cast<int>(cudaDeviceSynchronize()), static_cast<int>(cudaErrorLaunchFailure));
  CHECK_CONTAINS(take_failure(0), "not cooperative");
}

// ---- shared memory

struct PeekParams {
  unsigned *out;
};

__global__ void peek_shared(PeekParams p) {
  __shared__ unsigned word;
  if (threadIdx.x == 0) p.out[blockIdx.x] = word;
  __syncthreads();
  word = 7;
}

TEST(shared_memory_is_poisoned_for_each_block) {
  in_every_order([] {
    Buffer<unsigned> out(4);
    OK(launch(peek_shared, dim3(4), dim3(32), nullptr, PeekParams{out.device}));
    for (unsigned word : out.download()) CHECK_EQUAL(word, sim::settings().poison ? ~0u : 0u);
  });
}

struct DynamicParams {
  int *out;
  int overrun;  // words
};

__global__ void dynamic_shared(DynamicParams p) {
  SYNCBN_DYNAMIC_SHARED(int, cells);
  cells[threadIdx.x + static_cast<unsigned>(p.overrun)] = static_cast<int>(threadIdx.x);
  __syncthreads();
  p.out[threadIdx.x] = cells[blockDim.x - 1 - threadIdx.x];
}

TEST(dynamic_shared_memory_ends_at_a_guard) {
  Buffer<int> out(32);
  DynamicParams params = {out.device, 0};
  void *arguments[] = {&params};
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(32);
  config.dynamicSmemBytes = 128;
  const void *kernel = sim::known_kernel(dynamic_shared);
  OK(cudaLaunchKernelExC(&config, kernel, arguments));
  CHECK_EQUAL(out.download()[0], 31);
  params.overrun = 1;
  OK(cudaLaunchKernelExC(&config, kernel, arguments));
  CHECK_EQUAL(static_cast<int>(cudaDeviceSynchronize()), static_cast<int>(cudaErrorIllegalAddress));
  take_failure(0);
  config.dynamicSmemBytes = 49 << 10;
  CHECK_EQUAL(static_cast<int>(cudaLaunchKernelExC(&config, kernel, arguments)),
              static_cast<int>(cudaErrorInvalidValue));
  OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 49 << 10));
  params.overrun = 0;
  OK(cudaLaunchKernelExC(&config, kernel, arguments));
  OK(cudaDeviceSynchronize());
}

// ---- faults

struct RecurseParams {
  int *out;
};

int __attribute__((noinline)) recurse(int depth, volatile char *above) {
  volatile char frame[512];
  frame[0] = above ? above[0] : 1;
  return depth == 0 ? frame[0] : recurse(depth - 1, frame) + frame[0];
}

__global__ void overflow_stack(RecurseParams p) { *p.out = recurse(100000, nullptr); }

TEST(stack_overflow_poisons_the_device) {
  Buffer<int> out(1);
  OK(launch(overflow_stack, dim3(1), dim3(4), nullptr, RecurseParams{out.device}));
  CHECK_EQUAL(static_cast<int>(cudaDeviceSynchronize()), static_cast<int>(cudaErrorIllegalAddress));
  CHECK_CONTAINS(take_failure(0), "stack overflowed");
  // The same threads run the next kernel.
  Buffer<unsigned> word{0u};
  OK(launch(count, dim3(1), dim3(64), nullptr, CountParams{word.device}));
  CHECK_EQUAL(word.download()[0], 64u);
}

struct SpinParams {
  const uint32_t *flag;
};

__global__ void wait_for_flag(SpinParams p) {
  while (load_acquire_system(p.flag) == 0) {
  }
}

TEST(endless_spin_ends) {
  Scope scope;
  sim::settings().timeout_ms = 50;
  Buffer<uint32_t> flag{0u};
  OK(launch(wait_for_flag, dim3(2), dim3(2), nullptr, SpinParams{flag.device}));
  CHECK_EQUAL(static_cast<int>(cudaDeviceSynchronize()), static_cast<int>(cudaErrorLaunchTimeout));
  take_failure(0);
}

// One device thread waits for another of its block.
struct HandParams {
  uint32_t *flag;
  int *out;
};

__global__ void hand_over(HandParams p) {
  if (threadIdx.x == 0) {
    while (load_acquire_system(p.flag) == 0) {
    }
    *p.out = 3;
  } else if (threadIdx.x == 1) {
    store_release_system(p.flag, 1);
  }
}

TEST(spinning_lets_others_run) {
  in_every_order([] {
    Buffer<uint32_t> flag{0u};
    Buffer<int> out(1);
    OK(launch(hand_over, dim3(1), dim3(2), nullptr, HandParams{flag.device, out.device}));
    CHECK_EQUAL(out.download()[0], 3);
  });
}

TEST(launch_limits) {
  const auto refused = [](dim3 grid, dim3 block) {
    return static_cast<int>(launch(count, grid, block, nullptr, CountParams{}));
  };
  const int invalid = cudaErrorInvalidConfiguration;
  CHECK_EQUAL(refused(dim3(1), dim3(1025)), invalid);
  CHECK_EQUAL(refused(dim3(1), dim3(32, 64)), invalid);
  CHECK_EQUAL(refused(dim3(1), dim3(1, 1, 65)), invalid);
  CHECK_EQUAL(refused(dim3(0), dim3(1)), invalid);
  CHECK_EQUAL(refused(dim3(1, 65536), dim3(1)), invalid);
  CHECK_EQUAL(static_cast<int>(cudaPeekAtLastError()), 0);  // launch leaves none behind
  int blocks = 0;
  OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reinterpret_cast<const void *>(&count), 256, 0));
  CHECK_EQUAL(blocks, 8);
  cudaLaunchConfig_t config = {};
  void *arguments[] = {nullptr};
  CHECK_EQUAL(static_cast<int>(cudaLaunchKernelExC(&config, &config, arguments)),
              static_cast<int>(cudaErrorInvalidDeviceFunction));
  cudaGetLastError();
}

TEST(launches_are_listed) {
  sim::reset_launches();
  Buffer<unsigned> word{0u};
  OK(launch(store<int>, dim3(2, 1), dim3(32), nullptr, CountParams{word.device}));
  OK(cudaDeviceSynchronize());
  CHECK_EQUAL(sim::launches() == "0 store<int> (2,1,1) (32,1,1)\n", true);
}

}  // namespace
