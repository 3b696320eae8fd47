// What happens to ranks whose peers are lost, disagree, or are refused?
#include "ranks.h"

using namespace syncbn;
using namespace test;

namespace {

// The first collective connects the ranks: the caller waits for itself, until the communicator is aborted.
TEST(one_thread_without_a_group_hangs) {
  ncclComm_t comms[2];
  OK(ncclCommInitAll(comms, 2, nullptr));
  Buffer<int> x{1};
  std::atomic<int> result{-1};
  std::thread thread([&] { result = ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comms[0], nullptr); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_EQUAL(result.load(), -1);
  OK(ncclCommAbort(comms[0]));
  thread.join();
  CHECK_EQUAL(result.load(), static_cast<int>(ncclInternalError));
  OK(ncclCommAbort(comms[1]));
}

TEST(abort_frees_a_stuck_stream) {
  on_ranks(2, [](int rank, ncclComm_t comm, cudaStream_t stream) {
    Buffer<int> x{1};
    OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comm, stream));
    OK(cudaStreamSynchronize(stream));
    if (rank == 0) {
      OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comm, stream));  // rank 1 never comes
      CHECK_EQUAL(wait_at_most(stream, 20), kNotReady);
      ncclResult_t error = ncclSuccess;
      OK(ncclCommGetAsyncError(comm, &error));
      OK(error);
      sim::fail("asyncError", 1, ncclRemoteError);
      OK(ncclCommGetAsyncError(comm, &error));
      CHECK_EQUAL(static_cast<int>(error), static_cast<int>(ncclRemoteError));
      std::thread([&] { OK(ncclCommAbort(comm)); }).join();
      OK(static_cast<cudaError_t>(wait_at_most(stream, 2000)));
      CHECK_EQUAL(static_cast<int>(ncclCommAbort(comm)), static_cast<int>(ncclInvalidArgument));
    } else {
      OK(ncclCommDestroy(comm));
    }
    cudaGetLastError();
  });
}

// What ranks that disagree get: by seed nothing, or something that is not the sum. Never the sum.
TEST(different_counts_or_types_are_never_right) {
  int hangs = 0, garbage = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Scope scope;
    sim::settings().seed = seed;
    const bool types = seed % 2;
    std::atomic<int> hung{0};
    on_ranks(2, [&](int rank, ncclComm_t comm, cudaStream_t stream) {
      Buffer<int> x{1, 1, 1, 1};
      OK(ncclAllReduce(x.device, x.device, types ? 4 : 4 - static_cast<size_t>(rank),
                       types && rank ? ncclFloat32 : ncclInt32, ncclSum, comm, stream));
      if (wait_at_most(stream, 250) == kNotReady) {
        ++hung;
        OK(ncclCommAbort(comm));
        OK(cudaStreamSynchronize(stream));
      } else {
        x.download();
        CHECK(x.host[0] != 2 && x.host[1] != 2 && x.host[2] != 2);
        OK(ncclCommDestroy(comm));
      }
      cudaGetLastError();
    });
    CHECK(hung == 0 || hung == 2);
    ++(hung ? hangs : garbage);
  }
  CHECK(hangs > 0);
  CHECK(garbage > 0);
}

TEST(what_nccl_refuses) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm = nullptr;
  ncclConfig_t zero = {};
  CHECK_EQUAL(static_cast<int>(ncclCommInitRankConfig(&comm, 1, id, 0, &zero)), static_cast<int>(ncclInvalidArgument));
  CHECK_CONTAINS(ncclGetLastError(nullptr), "NCCL_CONFIG_INITIALIZER");
  ncclConfig_t config = {};
  config.size = sizeof config;
  config.magic = NCCL_API_MAGIC;
  config.version = 22903;
  config.blocking = 1;
  config.minCTAs = config.maxCTAs = NCCL_CONFIG_UNDEF_INT;
  CHECK_EQUAL(static_cast<int>(ncclCommInitRankConfig(&comm, 2, id, 2, &config)),
              static_cast<int>(ncclInvalidArgument));
  OK(ncclCommInitRankConfig(&comm, 1, id, 0, &config));
  Buffer<int> x{3};
  CHECK_EQUAL(static_cast<int>(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclProd, comm, nullptr)),
              static_cast<int>(ncclInvalidArgument));
  // A buffer that does not hold the count is a fault on the device.
  OK(ncclAllReduce(x.device, x.device, 1000, ncclInt32, ncclSum, comm, nullptr));
  CHECK_EQUAL(static_cast<int>(cudaDeviceSynchronize()), static_cast<int>(cudaErrorIllegalAddress));
  CHECK_CONTAINS(take_failure(0), "4000 bytes");
  OK(cudaSetDevice(1));
  cudaStream_t other;
  OK(cudaStreamCreate(&other));
  OK(cudaSetDevice(0));
  CHECK_EQUAL(static_cast<int>(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comm, other)),
              static_cast<int>(ncclInvalidUsage));
  OK(cudaStreamDestroy(other));
  OK(ncclCommDestroy(comm));
  CHECK_EQUAL(static_cast<int>(ncclCommDestroy(comm)), static_cast<int>(ncclInvalidArgument));
  const int same[] = {3, 3};
  ncclComm_t pair[2];
  CHECK_EQUAL(static_cast<int>(ncclCommInitAll(pair, 2, same)), static_cast<int>(ncclInvalidUsage));
  CHECK(pair[0] == nullptr && pair[1] == nullptr);
  CHECK_CONTAINS(ncclGetErrorString(ncclInvalidUsage), "invalid usage");
}

TEST(a_failed_call_fails_its_group) {
  ncclComm_t comms[2];
  OK(ncclCommInitAll(comms, 2, nullptr));
  Buffer<int> x{1};
  sim::fail("ncclAllReduce", 2, ncclSystemError);
  OK(ncclGroupStart());
  OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comms[0], nullptr));
  CHECK_EQUAL(static_cast<int>(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comms[1], nullptr)),
              static_cast<int>(ncclSystemError));
  CHECK_EQUAL(static_cast<int>(ncclGroupEnd()), static_cast<int>(ncclSystemError));
  // An end that is made to fail ends the group: the next call waits for no other.
  ncclUniqueId id;
  ncclComm_t alone = nullptr;
  sim::fail("ncclGroupEnd", 1, ncclSystemError);
  OK(ncclGroupStart());
  OK(ncclAllReduce(x.device, x.device, 1, ncclInt32, ncclSum, comms[0], nullptr));
  CHECK_EQUAL(static_cast<int>(ncclGroupEnd()), static_cast<int>(ncclSystemError));
  OK(ncclGetUniqueId(&id));
  OK(ncclCommInitRank(&alone, 1, id, 0));
  int ranks = 0;
  OK(ncclCommCount(alone, &ranks));
  CHECK_EQUAL(ranks, 1);
  OK(ncclCommDestroy(alone));
  CHECK_EQUAL(x.download()[0], 1);  // nothing was started
  OK(ncclCommDestroy(comms[0]));
  OK(ncclCommDestroy(comms[1]));
}

TEST(an_init_without_peers_can_be_aborted) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm = nullptr;
  std::atomic<int> result{-1};
  std::thread thread([&] { result = ncclCommInitRank(&comm, 2, id, 0); });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK_EQUAL(result.load(), -1);
  OK(ncclCommAbort(__atomic_load_n(&comm, __ATOMIC_RELAXED)));
  thread.join();
  CHECK_EQUAL(result.load(), static_cast<int>(ncclInternalError));
  CHECK(comm == nullptr);
}

}  // namespace
