// What does an operation ask of the CUDA runtime? On the simulated node, which counts.
#include "backend.h"
#include "check.h"
#include "sim.h"
#include "step.h"

namespace test {

// With the all-reduce, a direction is three launches; nothing is allocated, copied, filled or waited for.
TEST(operation_is_one_launch) {
  using syncbn::sim::calls;
  constexpr const char *kNever[] = {"cudaMalloc",
                                    "cudaFree",
                                    "cudaMemcpy",
                                    "cudaMemcpyAsync",
                                    "cudaMemset",
                                    "cudaMemsetAsync",
                                    "cudaDeviceSynchronize",
                                    "cudaEventRecord",
                                    "cudaStreamSynchronize"};
  constexpr int64_t kShapes[][3] = {{300, 64, 1}, {300, 37, 1}, {0, 5, 1}, {3, 64, 49}, {2, 3, 1000}};
  for (const auto &[outer, channels, inner] : kShapes) {
    Config config(channels, {{outer, inner}});
    config.layer.relu = true;
    const Context context("%s", config.text().c_str());
    Step step(config);
    Replica &replica = *step.replicas[0];
    const syncbn_stats_args stats = replica.stats_args();
    const syncbn_normalize_args normalize = replica.normalize_args();
    const syncbn_backward_reduce_args reduce = replica.backward_reduce_args();
    const syncbn_backward_input_args input = replica.backward_input_args();
    const auto enqueues_one = [&](const char *name, const auto &enqueue) {
      syncbn::sim::reset_calls();
      CHECK(enqueue() == SYNCBN_OK, "%s: %s", name, backend::last_error());
      CHECK(calls("cudaLaunchKernelExC") == 1, "%s: %ld launches", name, calls("cudaLaunchKernelExC"));
      for (const char *function : kNever) CHECK(calls(function) == 0, "%s calls %s", name, function);
    };
    enqueues_one("stats", [&] { return backend::stats(&stats); });
    enqueues_one("normalize", [&] { return backend::normalize(&normalize); });
    enqueues_one("backward_reduce", [&] { return backend::backward_reduce(&reduce); });
    enqueues_one("backward_input", [&] { return backend::backward_input(&input); });
    backend::synchronize();
  }
}

}  // namespace test
