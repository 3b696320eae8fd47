// Is a stream's work captured instead of done, and replayed as it was ordered?
#include <atomic>
#include <thread>

#include "check.h"
#include "nccl.h"
#include "sim/launch.h"

using namespace syncbn;
using namespace test;

namespace {

struct ScaleParams {
  double *x;
  double factor, term;
};

__global__ void scale(ScaleParams p) { *p.x = *p.x * p.factor + p.term; }

cudaError_t scale_on(cudaStream_t stream, double *x, double factor, double term) {
  return launch(scale, dim3(1), dim3(1), stream, ScaleParams{x, factor, term});
}

struct Streams {
  Streams() {
    OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  }
  ~Streams() {
    OK(cudaStreamDestroy(a));
    OK(cudaStreamDestroy(b));
    OK(cudaEventDestroy(fork));
    OK(cudaEventDestroy(join));
  }
  cudaStream_t a, b;
  cudaEvent_t fork, join;
};

int status_of(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  OK(cudaStreamIsCapturing(stream, &status));
  return status;
}

TEST(captured_forks_replay_in_order) {
  Streams s;
  Buffer<double> x{1.0}, y{1.0};
  OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
  OK(scale_on(s.a, x.device, 2, 1));
  OK(cudaEventRecord(s.fork, s.a));
  OK(cudaStreamWaitEvent(s.b, s.fork, 0));
  CHECK_EQUAL(status_of(s.b), static_cast<int>(cudaStreamCaptureStatusActive));
  OK(cudaMemcpyAsync(y.device, x.device, 8, cudaMemcpyDeviceToDevice, s.b));
  OK(scale_on(s.b, y.device, 10, 0));
  OK(cudaEventRecord(s.join, s.b));
  OK(cudaStreamWaitEvent(s.a, s.join, 0));
  OK(scale_on(s.a, y.device, 1, 5));
  cudaGraph_t graph = nullptr;
  OK(cudaStreamEndCapture(s.a, &graph));
  CHECK_EQUAL(status_of(s.b), static_cast<int>(cudaStreamCaptureStatusNone));
  cudaGraphExec_t exec = nullptr;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  OK(cudaGraphDestroy(graph));
  CHECK_EQUAL(x.download()[0], 1.0);  // nothing ran during the capture
  sim::reset_launches();
  double expected = 1;
  for (int replay = 0; replay < 4; ++replay) {
    OK(cudaGraphLaunch(exec, s.a));
    OK(cudaStreamSynchronize(s.a));
    expected = expected * 2 + 1;
    CHECK_EQUAL(x.download()[0], expected);
    CHECK_EQUAL(y.download()[0], expected * 10 + 5);
  }
  const std::string lines = sim::launches();
  CHECK_EQUAL(std::count(lines.begin(), lines.end(), '\n'), 12);
  OK(cudaGraphLaunch(exec, s.b));
  OK(cudaGraphExecDestroy(exec));  // in flight
  OK(cudaStreamSynchronize(s.b));
  CHECK_EQUAL(x.download()[0], expected * 2 + 1);
}

TEST(captures_refuse_what_cuda_refuses) {
  Streams s;
  Buffer<double> x{1.0};
  cudaGraph_t graph = nullptr;
  void *memory = nullptr;
  const auto begin = [&](cudaStreamCaptureMode mode) {
    OK(cudaStreamBeginCapture(s.a, mode));
    OK(scale_on(s.a, x.device, 1, 1));
  };
  const auto end = [&] { return static_cast<int>(cudaStreamEndCapture(s.a, &graph)); };
  const int unsupported = cudaErrorStreamCaptureUnsupported, invalidated = cudaErrorStreamCaptureInvalidated;

  begin(cudaStreamCaptureModeThreadLocal);
  CHECK_EQUAL(static_cast<int>(cudaMalloc(&memory, 8)), unsupported);
  CHECK_EQUAL(status_of(s.a), static_cast<int>(cudaStreamCaptureStatusInvalidated));
  CHECK_EQUAL(end(), invalidated);

  // Allocation is forbidden where the mode says so; waiting for a capturing stream, and asking how far it is, always.
  for (const auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal}) {
    OK(cudaMalloc(&memory, 8));
    begin(mode);
    CHECK_EQUAL(static_cast<int>(cudaFree(memory)), unsupported);
    CHECK_EQUAL(end(), invalidated);
    OK(cudaFree(memory));
    begin(mode);
    CHECK_EQUAL(static_cast<int>(cudaHostAlloc(&memory, 8, 0)), unsupported);
    CHECK_EQUAL(end(), invalidated);
  }
  begin(cudaStreamCaptureModeRelaxed);
  OK(cudaMalloc(&memory, 8));
  OK(cudaFree(memory));
  CHECK_EQUAL(static_cast<int>(cudaStreamSynchronize(s.a)), unsupported);
  CHECK_EQUAL(end(), invalidated);
  begin(cudaStreamCaptureModeRelaxed);
  CHECK_EQUAL(static_cast<int>(cudaStreamQuery(s.a)), unsupported);
  CHECK_EQUAL(end(), invalidated);

  // Another thread's call spoils a global capture, but not where either is thread-local.
  const auto query_elsewhere = [&](bool thread_local_mode) {
    int result = 0;
    std::thread([&] {
      cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal;
      if (thread_local_mode) OK(cudaThreadExchangeStreamCaptureMode(&mode));
      result = cudaEventQuery(s.fork);
    }).join();
    return result;
  };
  begin(cudaStreamCaptureModeGlobal);
  CHECK_EQUAL(query_elsewhere(true), 0);
  CHECK_EQUAL(query_elsewhere(false), unsupported);
  CHECK_EQUAL(end(), invalidated);
  begin(cudaStreamCaptureModeThreadLocal);
  CHECK_EQUAL(query_elsewhere(false), 0);
  OK(static_cast<cudaError_t>(end()));
  OK(cudaGraphDestroy(graph));

  begin(cudaStreamCaptureModeThreadLocal);
  OK(cudaEventRecord(s.fork, s.a));
  OK(cudaStreamWaitEvent(s.b, s.fork, 0));
  OK(scale_on(s.b, x.device, 1, 1));
  CHECK_EQUAL(end(), static_cast<int>(cudaErrorStreamCaptureUnjoined));
  CHECK_EQUAL(static_cast<int>(cudaEventQuery(s.fork)), static_cast<int>(cudaErrorCapturedEvent));

  OK(cudaEventRecord(s.fork, s.b));
  begin(cudaStreamCaptureModeThreadLocal);
  CHECK_EQUAL(static_cast<int>(cudaStreamWaitEvent(s.a, s.fork, 0)), static_cast<int>(cudaErrorStreamCaptureIsolation));
  CHECK_EQUAL(end(), invalidated);
  CHECK_EQUAL(static_cast<int>(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal)), unsupported);
  OK(cudaDeviceSynchronize());
  CHECK_EQUAL(x.download()[0], 1.0);
  cudaGetLastError();
}

// A node of the graph: read where it lies at each replay, from pageable memory too.
TEST(captured_copies_read_the_host_at_replay) {
  Streams s;
  Buffer<double> x{0.0};
  double host = 1;
  OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
  OK(cudaMemcpyAsync(x.device, &host, sizeof host, cudaMemcpyHostToDevice, s.a));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  OK(cudaStreamEndCapture(s.a, &graph));
  OK(cudaGraphInstantiate(&exec, graph, 0));
  for (host = 2; host < 4; ++host) {
    OK(cudaGraphLaunch(exec, s.a));
    OK(cudaStreamSynchronize(s.a));
    CHECK_EQUAL(x.download()[0], host);
  }
  OK(cudaGraphExecDestroy(exec));
  OK(cudaGraphDestroy(graph));
}

TEST(blocking_captures_bar_the_legacy_stream) {
  Buffer<double> x{1.0};
  cudaStream_t blocking;
  cudaGraph_t graph = nullptr;
  OK(cudaStreamCreate(&blocking));
  OK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeThreadLocal));
  cudaStreamCaptureStatus status;
  const int implicit = cudaErrorStreamCaptureImplicit;
  CHECK_EQUAL(static_cast<int>(cudaStreamIsCapturing(nullptr, &status)), implicit);
  CHECK_EQUAL(status_of(blocking), static_cast<int>(cudaStreamCaptureStatusActive));
  CHECK_EQUAL(static_cast<int>(scale_on(nullptr, x.device, 1, 1)), implicit);
  CHECK_EQUAL(static_cast<int>(cudaStreamEndCapture(blocking, &graph)),
              static_cast<int>(cudaErrorStreamCaptureInvalidated));
  CHECK_EQUAL(status_of(nullptr), static_cast<int>(cudaStreamCaptureStatusNone));
  OK(cudaStreamDestroy(blocking));
  cudaGetLastError();
}

// Each thread captures its rank's step, a kernel and an all-reduce, and replays it.
TEST(captured_collectives_replay) {
  constexpr int kRanks = 4;
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  std::vector<double> results(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      OK(cudaSetDevice(rank));
      ncclComm_t comm;
      OK(ncclCommInitRank(&comm, kRanks, id, rank));
      Streams s;
      Buffer<double> x{1.0 + rank};
      const auto step = [&] {
        OK(scale_on(s.a, x.device, 1, 1));
        OK(ncclAllReduce(x.device, x.device, 1, ncclFloat64, ncclSum, comm, s.a));
      };
      step();  // 10 + 4 = 14 everywhere
      OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
      step();
      cudaGraph_t graph;
      cudaGraphExec_t exec;
      OK(cudaStreamEndCapture(s.a, &graph));
      OK(cudaGraphInstantiate(&exec, graph, 0));
      for (int replay = 0; replay < 3; ++replay) OK(cudaGraphLaunch(exec, s.a));
      OK(cudaStreamSynchronize(s.a));
      results[static_cast<size_t>(rank)] = x.download()[0];
      OK(cudaGraphExecDestroy(exec));
      OK(cudaGraphDestroy(graph));
      OK(ncclCommDestroy(comm));
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (double result : results) CHECK_EQUAL(result, ((14.0 + 1) * 4 + 1) * 16 + 4);
}

TEST(communicators_go_after_their_graphs) {
  for (const auto end : {ncclCommDestroy, ncclCommAbort}) {
    ncclUniqueId id;
    OK(ncclGetUniqueId(&id));
    ncclComm_t comm;
    OK(ncclCommInitRank(&comm, 1, id, 0));
    Streams s;
    Buffer<double> x{1.0};
    const auto sum = [&] { OK(ncclAllReduce(x.device, x.device, 1, ncclFloat64, ncclSum, comm, s.a)); };
    sum();
    OK(cudaStreamSynchronize(s.a));
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    sum();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaStreamEndCapture(s.a, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphLaunch(exec, s.a));
    OK(cudaStreamSynchronize(s.a));
    std::atomic<bool> gone{false};
    std::thread thread([&] {
      OK(end(comm));
      gone = true;
    });
    OK(cudaGraphDestroy(graph));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(!gone);
    OK(cudaGraphExecDestroy(exec));
    thread.join();
    cudaGetLastError();
  }
}

}  // namespace
