// Are streams asynchronous and ordered, and do events say so?
#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"

using namespace syncbn;
using namespace test;

namespace {

// A word in pinned memory that kernels and the host see.
class Flag {
 public:
  Flag() {
    cudaHostAlloc(reinterpret_cast<void **>(&word), sizeof *word, cudaHostAllocMapped);
    *word = 0;
  }
  ~Flag() { cudaFreeHost(word); }
  void set() { __atomic_store_n(word, 1u, __ATOMIC_RELEASE); }
  uint32_t *word = nullptr;
};

class OwnStream {
 public:
  explicit OwnStream(unsigned flags = cudaStreamNonBlocking) { OK(cudaStreamCreateWithFlags(&handle, flags)); }
  ~OwnStream() { OK(cudaStreamDestroy(handle)); }
  cudaStream_t handle = nullptr;
};

class OwnEvent {
 public:
  explicit OwnEvent(unsigned flags = cudaEventDefault) { OK(cudaEventCreateWithFlags(&handle, flags)); }
  ~OwnEvent() { OK(cudaEventDestroy(handle)); }
  cudaEvent_t handle = nullptr;
};

struct WaitParams {
  const uint32_t *flag;
};

__global__ void wait_for_host(WaitParams p) {
  while (load_acquire_system(p.flag) == 0) {
  }
}

struct AppendParams {
  unsigned *log;  // [0]: how many entries follow
  unsigned value;
};

__global__ void append(AppendParams p) { p.log[1 + atomicAdd(p.log, 1u)] = p.value; }

const int kNotReady = cudaErrorNotReady;

TEST(streams_are_asynchronous) {
  Flag flag;
  OwnStream a, b;
  Buffer<unsigned> log(4);
  OK(cudaMemset(log.device, 0, 16));
  OK(cudaDeviceSynchronize());
  OK(launch(wait_for_host, dim3(1), dim3(1), a.handle, WaitParams{flag.word}));
  OK(launch(append, dim3(1), dim3(1), a.handle, AppendParams{log.device, 1}));
  OK(launch(append, dim3(1), dim3(1), b.handle, AppendParams{log.device, 2}));
  OK(cudaStreamSynchronize(b.handle));
  CHECK_EQUAL(static_cast<int>(cudaStreamQuery(a.handle)), kNotReady);
  flag.set();
  OK(cudaStreamSynchronize(a.handle));
  OK(cudaStreamQuery(a.handle));
  log.download();
  CHECK_EQUAL(log.host[0], 2u);
  CHECK_EQUAL(log.host[1], 2u);
  CHECK_EQUAL(log.host[2], 1u);
  int device = -1;
  OK(cudaStreamGetDevice(a.handle, &device));
  CHECK_EQUAL(device, 0);
  cudaGetLastError();
}

TEST(work_of_a_destroyed_stream_is_done) {
  Flag flag;
  Buffer<unsigned> log{0u, 0u};
  cudaStream_t stream;
  OwnEvent done;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(launch(wait_for_host, dim3(1), dim3(1), stream, WaitParams{flag.word}));
  OK(launch(append, dim3(1), dim3(1), stream, AppendParams{log.device, 4}));
  OK(cudaEventRecord(done.handle, stream));
  OK(cudaStreamDestroy(stream));
  flag.set();
  OK(cudaEventSynchronize(done.handle));
  CHECK_EQUAL(log.download()[1], 4u);
  CHECK_EQUAL(static_cast<int>(cudaStreamSynchronize(stream)), static_cast<int>(cudaErrorInvalidResourceHandle));
  cudaGetLastError();
}

TEST(events_order_streams) {
  Flag flag;
  OwnStream a, b;
  OwnEvent before, after, untimed(cudaEventDisableTiming), never;
  Buffer<unsigned> log{0u, 0u, 0u};
  OK(cudaEventQuery(never.handle));
  OK(cudaEventRecord(before.handle, a.handle));
  OK(launch(wait_for_host, dim3(1), dim3(1), a.handle, WaitParams{flag.word}));
  OK(launch(append, dim3(1), dim3(1), a.handle, AppendParams{log.device, 1}));
  OK(cudaEventRecord(after.handle, a.handle));
  OK(cudaStreamWaitEvent(b.handle, after.handle, 0));
  OK(launch(append, dim3(1), dim3(1), b.handle, AppendParams{log.device, 2}));
  OK(cudaEventSynchronize(before.handle));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK_EQUAL(static_cast<int>(cudaEventQuery(after.handle)), kNotReady);
  float ms = 0;
  CHECK_EQUAL(static_cast<int>(cudaEventElapsedTime(&ms, before.handle, after.handle)), kNotReady);
  flag.set();
  OK(cudaStreamSynchronize(b.handle));
  log.download();
  CHECK_EQUAL(log.host[1], 1u);
  CHECK_EQUAL(log.host[2], 2u);
  OK(cudaEventElapsedTime(&ms, before.handle, after.handle));
  CHECK(ms >= 5);
  OK(cudaEventRecord(untimed.handle, a.handle));
  OK(cudaEventSynchronize(untimed.handle));
  CHECK_EQUAL(static_cast<int>(cudaEventElapsedTime(&ms, before.handle, untimed.handle)),
              static_cast<int>(cudaErrorInvalidResourceHandle));
  cudaGetLastError();
}

TEST(streams_and_events_belong_to_devices) {
  OwnStream a;
  OwnEvent e;
  OK(cudaSetDevice(1));
  OwnStream b;
  const int invalid = cudaErrorInvalidResourceHandle;
  Buffer<unsigned> log{0u, 0u};
  CHECK_EQUAL(static_cast<int>(launch(append, dim3(1), dim3(1), a.handle, AppendParams{log.device, 1})), invalid);
  CHECK_EQUAL(static_cast<int>(cudaMemsetAsync(log.device, 0, 8, a.handle)), invalid);
  CHECK_EQUAL(static_cast<int>(cudaEventRecord(e.handle, b.handle)), invalid);
  OK(cudaEventRecord(e.handle, a.handle));
  OK(cudaStreamWaitEvent(b.handle, e.handle, 0));
  OK(cudaStreamSynchronize(b.handle));
  OK(cudaSetDevice(0));
  cudaGetLastError();
}

// Work of the default stream waits for blocking streams and they for it; non-blocking ones go their way.
TEST(default_stream_orders_blocking_streams) {
  Flag flag;
  OwnStream blocking(cudaStreamDefault), free;
  Buffer<unsigned> log{0u, 0u, 0u, 0u, 0u};
  OK(launch(wait_for_host, dim3(1), dim3(1), blocking.handle, WaitParams{flag.word}));
  OK(launch(append, dim3(1), dim3(1), blocking.handle, AppendParams{log.device, 1}));
  OK(launch(append, dim3(1), dim3(1), nullptr, AppendParams{log.device, 2}));
  OK(launch(append, dim3(1), dim3(1), blocking.handle, AppendParams{log.device, 3}));
  OK(launch(append, dim3(1), dim3(1), free.handle, AppendParams{log.device, 4}));
  OK(cudaStreamSynchronize(free.handle));
  flag.set();
  OK(cudaDeviceSynchronize());
  log.download();
  const unsigned expected[] = {4, 4, 1, 2, 3};
  for (size_t i = 0; i < 5; ++i) CHECK_EQUAL(log.host[i], expected[i]);
}

TEST(asynchronous_copies_of_pageable_memory) {
  OwnStream stream;
  Buffer<int> x(1000);
  std::vector<int> host(1000, 5), back(1000);
  OK(cudaMemcpyAsync(x.device, host.data(), x.bytes(), cudaMemcpyHostToDevice, stream.handle));
  host.assign(1000, 6);  // already read
  OK(cudaMemcpyAsync(back.data(), x.device, x.bytes(), cudaMemcpyDeviceToHost, stream.handle));
  CHECK_EQUAL(back[999], 5);  // already written
  // Pinned memory is read when the stream gets there.
  Flag flag;
  int *pinned = nullptr;
  OK(cudaHostAlloc(reinterpret_cast<void **>(&pinned), x.bytes(), 0));
  pinned[0] = 1;
  OK(launch(wait_for_host, dim3(1), dim3(1), stream.handle, WaitParams{flag.word}));
  OK(cudaMemcpyAsync(x.device, pinned, x.bytes(), cudaMemcpyHostToDevice, stream.handle));
  pinned[0] = 2;
  flag.set();
  OK(cudaStreamSynchronize(stream.handle));
  CHECK_EQUAL(x.download()[0], 2);
  OK(cudaFreeHost(pinned));
}

TEST(freeing_waits_for_the_device) {
  Flag flag;
  OwnStream stream;
  void *memory = nullptr;
  OK(cudaMalloc(&memory, 8));
  OK(launch(wait_for_host, dim3(1), dim3(1), stream.handle, WaitParams{flag.word}));
  std::atomic<bool> freed{false};
  std::thread thread([&] {
    OK(cudaFree(memory));
    freed = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!freed);
  flag.set();
  thread.join();
}

TEST(a_stalled_device_goes_on) {
  OwnStream stream;
  Buffer<unsigned> log{0u, 0u};
  sim::device(0)->stalled = true;
  OK(launch(append, dim3(1), dim3(1), stream.handle, AppendParams{log.device, 1}));
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK_EQUAL(static_cast<int>(cudaStreamQuery(stream.handle)), kNotReady);
  sim::device(0)->stalled = false;
  OK(cudaStreamSynchronize(stream.handle));
  CHECK_EQUAL(log.download()[1], 1u);
  cudaGetLastError();
}

TEST(operations_after_a_failure_do_not_run) {
  OwnStream stream;
  OwnEvent event;
  Buffer<unsigned> log{0u, 0u};
  Flag flag;  // nothing fails before everything is queued
  sim::fail("kernel", 2, cudaErrorLaunchFailure);
  OK(launch(wait_for_host, dim3(1), dim3(1), stream.handle, WaitParams{flag.word}));
  for (unsigned i = 1; i <= 2; ++i) OK(launch(append, dim3(1), dim3(1), stream.handle, AppendParams{log.device, i}));
  OK(cudaEventRecord(event.handle, stream.handle));
  flag.set();
  CHECK_EQUAL(static_cast<int>(cudaEventSynchronize(event.handle)), static_cast<int>(cudaErrorLaunchFailure));
  CHECK_EQUAL(static_cast<int>(cudaStreamSynchronize(stream.handle)), static_cast<int>(cudaErrorLaunchFailure));
  CHECK_CONTAINS(take_failure(0), "injected into append");
  CHECK_EQUAL(log.download()[0], 0u);
}

}  // namespace
