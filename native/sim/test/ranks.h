// How do tests run one rank per thread?
#ifndef SYNCBN_SIM_TEST_RANKS_H
#define SYNCBN_SIM_TEST_RANKS_H

#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"
#include "nccl.h"

namespace test {

// Runs body(rank, comm, stream) for each rank on a thread and a device of its own.
template <typename Body>
void on_ranks(int ranks, Body body) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      OK(cudaSetDevice(rank));
      ncclComm_t comm = nullptr;
      OK(ncclCommInitRank(&comm, ranks, id, rank));
      cudaStream_t stream;
      OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      body(rank, comm, stream);
      OK(cudaStreamDestroy(stream));
    });
  }
  for (std::thread &thread : threads) thread.join();
}

// The stream's status once it has one, or after so long.
inline int wait_at_most(cudaStream_t stream, int milliseconds) {
  for (int i = 0; i < milliseconds && cudaStreamQuery(stream) == cudaErrorNotReady; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return cudaStreamQuery(stream);
}

constexpr int kNotReady = cudaErrorNotReady;

}  // namespace test

#endif
