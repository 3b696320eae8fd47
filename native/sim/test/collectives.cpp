// Do ranks meet as NCCL's do, in threads and processes?
#include <math.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ranks.h"

using namespace syncbn;
using namespace test;

namespace {

TEST(ranks_in_threads_add) {
  constexpr size_t kCount = 70000;  // more than one round of the segment
  on_ranks(4, [](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<double> x(kCount), y(kCount);
    for (size_t i = 0; i < kCount; ++i) x.host[i] = static_cast<double>(i) * (rank + 1);
    OK(x.upload());
    for (int step = 0; step < 3; ++step) {
      OK(ncclAllReduce(x.device, y.device, kCount, ncclFloat64, ncclSum, comm, stream));
    }
    OK(ncclAllReduce(x.device, x.device, kCount, ncclFloat64, ncclMax, comm, stream));  // in place
    OK(cudaStreamSynchronize(stream));
    int wrong = 0;
    y.download();
    x.download();
    for (size_t i = 0; i < kCount; ++i) {
      wrong += y.host[i] != 10.0 * static_cast<double>(i) || x.host[i] != 4.0 * static_cast<double>(i);
    }
    CHECK_EQUAL(wrong, 0);
    int count = 0, own = -1, device = -1;
    OK(ncclCommCount(comm, &count));
    OK(ncclCommUserRank(comm, &own));
    OK(ncclCommCuDevice(comm, &device));
    CHECK(count == 4 && own == rank && device == rank);
    OK(ncclCommFinalize(comm));
    CHECK_EQUAL(static_cast<int>(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comm, stream)),
                static_cast<int>(ncclInvalidUsage));
    OK(ncclCommDestroy(comm));
  });
}

template <typename T>
void reduce_on_two(ncclDataType_t type, ncclRedOp_t operation, std::vector<T> first, std::vector<T> second,
                   std::vector<T> expected) {
  on_ranks(2, [&](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<T> x(first.size());
    x.host = rank ? second : first;
    OK(x.upload());
    OK(ncclAllReduce(x.device, x.device, first.size(), type, operation, comm, stream));
    OK(cudaStreamSynchronize(stream));
    x.download();
    for (size_t i = 0; i < expected.size(); ++i) CHECK_EQUAL(x.host[i], expected[i]);
    OK(ncclCommDestroy(comm));
  });
}

TEST(types_reduce) {
  reduce_on_two<int32_t>(ncclInt32, ncclMin, {3, -7, 0x7fffffff}, {5, -8, 1}, {3, -8, 1});
  reduce_on_two<int64_t>(ncclInt64, ncclSum, {1ll << 40}, {1}, {(1ll << 40) + 1});
  reduce_on_two<uint8_t>(ncclUint8, ncclMax, {200, 1}, {100, 2}, {200, 2});
  reduce_on_two<uint8_t>(ncclUint8, ncclSum, {200}, {100}, {44});
  reduce_on_two<float>(ncclFloat32, ncclSum, {1.5f, 1.0f}, {2.25f, 0x1p-24f}, {3.75f, 1.0f});
  // 1 + 1/1024 = 0x3c01; 1 + 2^-11 ties to even, 1.0; 65504 + 16 rounds up to infinity; 2^-24 + 2^-24 is subnormal.
  reduce_on_two<uint16_t>(ncclFloat16, ncclSum, {0x3c00, 0x3c00, 0x7bff, 0x0001, 0xc000, 0x3bff},
                          {0x1400, 0x1000, 0x4c00, 0x0001, 0x3c00, 0x1000},
                          {0x3c01, 0x3c00, 0x7c00, 0x0002, 0xbc00, 0x3c00});
  // 1 + 2^-7 = 0x3f81; 1 + 2^-8 ties to even; -2 + 1.
  reduce_on_two<uint16_t>(ncclBfloat16, ncclSum, {0x3f80, 0x3f80, 0xc000}, {0x3c00, 0x3b80, 0x3f80},
                          {0x3f81, 0x3f80, 0xbf80});
}

TEST(broadcasts_come_from_the_root) {
  on_ranks(3, [](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<int> x(40000);
    x.host.assign(40000, rank * 10 + 5);
    OK(x.upload());
    OK(ncclBroadcast(x.device, x.device, 40000, ncclInt32, 2, comm, stream));
    OK(cudaStreamSynchronize(stream));
    x.download();
    CHECK(x.host[0] == 25 && x.host[39999] == 25);
    OK(ncclCommDestroy(comm));
  });
}

// A sum whose bits depend on the order: all ranks must get the same, and seeds must change it.
std::vector<float> inexact_sum(uint64_t seed) {
  Scope scope;
  sim::settings().seed = seed;
  constexpr size_t kCount = 512;
  std::vector<std::vector<float>> results(4);
  on_ranks(4, [&](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<float> x(kCount);
    for (size_t i = 0; i < kCount; ++i)
      x.host[i] = static_cast<float>(sin(static_cast<double>(i) * 7 + rank)) * (rank == 1 ? 1e4f : 1.0f);
    OK(x.upload());
    OK(ncclAllReduce(x.device, x.device, kCount, ncclFloat32, ncclSum, comm, stream));
    OK(cudaStreamSynchronize(stream));
    results[static_cast<size_t>(rank)] = x.download();
    OK(ncclCommDestroy(comm));
  });
  for (const auto &result : results) CHECK(result == results[0]);
  return results[0];
}

TEST(the_seed_is_the_order_of_a_sum) {
  const std::vector<float> first = inexact_sum(1);
  CHECK(first == inexact_sum(1));
  CHECK(first != inexact_sum(2));
  CHECK(first != inexact_sum(3));
}

TEST(one_thread_drives_ranks_in_a_group) {
  constexpr int kRanks = 4;
  ncclComm_t comms[kRanks];
  OK(ncclCommInitAll(comms, kRanks, nullptr));
  std::vector<std::unique_ptr<Buffer<int>>> x;
  for (int rank = 0; rank < kRanks; ++rank) {
    OK(cudaSetDevice(rank));
    x.push_back(std::unique_ptr<Buffer<int>>(new Buffer<int>{rank, 100}));
  }
  for (int step = 0; step < 2; ++step) {
    OK(ncclGroupStart());
    for (int rank = 0; rank < kRanks; ++rank) {
      int *data = x[static_cast<size_t>(rank)]->device;
      OK(ncclAllReduce(data, data, 2, ncclInt32, ncclSum, comms[rank], nullptr));
    }
    OK(ncclGroupEnd());
  }
  for (int rank = 0; rank < kRanks; ++rank) {
    OK(cudaSetDevice(rank));
    const std::vector<int> &result = x[static_cast<size_t>(rank)]->download();
    CHECK(result[0] == 24 && result[1] == 1600);
    OK(ncclCommDestroy(comms[rank]));
  }
  x.clear();
  OK(cudaSetDevice(0));
  CHECK_EQUAL(static_cast<int>(ncclGroupEnd()), static_cast<int>(ncclInvalidUsage));
}

TEST(destroying_waits_for_collectives) {
  std::atomic<bool> second_came{false};
  on_ranks(2, [&](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<int> x{1};
    OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comm, stream));
    OK(cudaStreamSynchronize(stream));
    if (rank == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
      second_came = true;
    }
    OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comm, stream));
    OK(ncclCommDestroy(comm));
    CHECK(second_came);
    OK(cudaStreamSynchronize(stream));
    CHECK_EQUAL(x.download()[0], 2 * 2);
  });
}

TEST(receive_buffers_hold_no_result_before_it_is_there) {
  std::atomic<bool> looked{false};
  on_ranks(2, [&](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<float> x{1.0f};
    float *y = nullptr;  // pinned, so that the host sees it while the collective runs
    OK(cudaHostAlloc(reinterpret_cast<void **>(&y), sizeof *y, 0));
    OK(ncclAllReduce(x.device, x.device, 1, ncclFloat32, ncclSum, comm, stream));
    OK(cudaStreamSynchronize(stream));
    *y = 2.0f;
    if (rank == 0) {
      OK(ncclAllReduce(x.device, y, 1, ncclFloat32, ncclSum, comm, stream));
      CHECK_EQUAL(wait_at_most(stream, 20), kNotReady);
      float seen = 2.0f;
      for (int i = 0; i < 2000 && !isnan(seen); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        __atomic_load(y, &seen, __ATOMIC_RELAXED);
      }
      CHECK(isnan(seen));
      looked = true;
    } else {
      while (!looked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      OK(ncclAllReduce(x.device, y, 1, ncclFloat32, ncclSum, comm, stream));
    }
    OK(cudaStreamSynchronize(stream));
    CHECK_EQUAL(*y, 4.0f);
    OK(cudaFreeHost(y));
    OK(ncclCommDestroy(comm));
    cudaGetLastError();
  });
}

TEST(splits_make_smaller_cliques) {
  on_ranks(4, [](int rank, ncclComm_t comm, cudaStream_t stream) {
    ncclComm_t half = nullptr, none = comm;
    OK(ncclCommSplit(comm, rank % 2, -rank, &half, nullptr));
    OK(ncclCommSplit(comm, rank == 0 ? 0 : NCCL_SPLIT_NOCOLOR, 0, &none, nullptr));
    CHECK((none != nullptr) == (rank == 0));
    int own = -1;
    OK(ncclCommUserRank(half, &own));
    CHECK_EQUAL(own, rank < 2 ? 1 : 0);  // the lower key comes first
    Buffer<int> x{rank};
    OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, half, stream));
    OK(cudaStreamSynchronize(stream));
    CHECK_EQUAL(x.download()[0], rank % 2 ? 4 : 2);
    if (none) OK(ncclCommDestroy(none));
    OK(ncclCommDestroy(half));
    OK(ncclCommDestroy(comm));
  });
}

// One rank of a pair of processes. Returns the process's exit status.
int process_rank(int rank, const ncclUniqueId &id) {
  const bool ok = cudaSetDevice(rank) == 0;
  ncclComm_t comm = nullptr;
  if (!ok || ncclCommInitRank(&comm, 2, id, rank) != ncclSuccess) return 2;
  {
    Buffer<double> x(1000);
    for (int step = 0; step < 50; ++step) {
      x.host.assign(1000, rank + step);
      x.upload();
      if (ncclAllReduce(x.device, x.device, 1000, ncclFloat64, ncclSum, comm, nullptr) != ncclSuccess) return 3;
      x.download();
      if (x.host[0] != 2 * step + 1 || x.host[999] != 2 * step + 1) return 4;
    }
  }
  return ncclCommDestroy(comm) == ncclSuccess ? 0 : 5;
}

}  // namespace

void two_processes() {
  int ends[2];
  if (pipe(ends) != 0) return;
  pid_t children[2];
  for (int rank = 0; rank < 2; ++rank) {
    children[rank] = fork();
    if (children[rank] != 0) continue;
    ncclUniqueId id;
    if (rank == 0) {
      ncclGetUniqueId(&id);
      if (write(ends[1], &id, sizeof id) != sizeof id) _exit(6);
    } else if (read(ends[0], &id, sizeof id) != sizeof id) {
      _exit(7);
    }
    _exit(process_rank(rank, id));
  }
  for (pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    CHECK_EQUAL(status, 0);
  }
  close(ends[0]);
  close(ends[1]);
  printf("ran    two_processes\n");
}
