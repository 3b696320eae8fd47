// What does an operation ask of the CUDA runtime? On the simulated node, which counts.
#include <string.h>

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

namespace {

// Bytes on the chip of each direction; 0: two launches.
struct OnChip {
  int64_t forward, backward;
};

OnChip on_chip(const Replica &replica) {
  const syncbn_stats_args stats = replica.stats_args();
  const syncbn_normalize_args normalize = replica.normalize_args();
  const syncbn_backward_reduce_args reduce = replica.backward_reduce_args();
  const syncbn_backward_input_args input = replica.backward_input_args();
  OnChip bytes = {-1, -1};
  CHECK(syncbn_cuda_forward_on_chip(&stats, &normalize, &bytes.forward) == SYNCBN_OK, "%s", backend::last_error());
  CHECK(syncbn_cuda_backward_on_chip(&reduce, &input, &bytes.backward) == SYNCBN_OK, "%s", backend::last_error());
  return bytes;
}

// A step in one call a direction, which makes so many launches each.
void check_launches(const Config &config, long launches) {
  using syncbn::sim::calls;
  const Context context("%s", config.text().c_str());
  Step step(config);
  const OnChip bytes = on_chip(*step.replicas[0]);
  CHECK((bytes.forward > 0) == (launches == 1), "forward: %lld bytes on the chip", (long long)bytes.forward);
  CHECK((bytes.backward > 0) == (launches == 1), "backward: %lld bytes on the chip", (long long)bytes.backward);
  syncbn::sim::reset_calls();
  step.forward_at_once();
  CHECK(calls("cudaLaunchKernelExC") == launches, "forward: %ld launches", calls("cudaLaunchKernelExC"));
  CHECK(calls("cudaStreamSynchronize") + calls("cudaMalloc") == 0, "forward waits or allocates");
  syncbn::sim::reset_calls();
  step.backward_at_once();
  CHECK(calls("cudaLaunchKernelExC") == launches, "backward: %ld launches", calls("cudaLaunchKernelExC"));
  backend::synchronize();
  step.run();
}

}  // namespace

// Shapes of one block a tile, and of several that wait for each other.
TEST(direction_of_one_replica_is_one_launch) {
  const int multiprocessors = syncbn::sim::settings().sms;
  syncbn::sim::settings().sms = 12;
  constexpr int64_t kShapes[][3] = {{0, 64, 1},  {60, 64, 1},  {200, 64, 1},  {1500, 8, 1},
                                    {3, 64, 49}, {2, 64, 196}, {2, 2, 10000}, {10, 16, 49}};
  for (const auto &[outer, channels, inner] : kShapes) {
    for (const int32_t dtype : {SYNCBN_FLOAT32, SYNCBN_BFLOAT16}) {
      Config config(channels, {{outer, inner}});
      config.layer.dtype = dtype;
      config.residual = inner == 49;
      config.layer.relu = true;
      config.layer.relu_again = inner != 49;
      check_launches(config, 1);
    }
  }
  syncbn::sim::settings().sms = multiprocessors;
}

// With so many channels each tile has one block, however much there is of each.
TEST(units_beyond_the_registers) {
  for (const int64_t inner : {601, 1160}) {
    Config config(1057, {{1, inner}});
    config.layer.relu = config.layer.relu_again = true;
    check_launches(config, 1);
  }
}

TEST(what_the_chip_does_not_hold_is_two_launches) {
  Config many_blocks(64, {{300, 1}});
  check_launches(many_blocks, 2);
  Config float64(8, {{20, 1}});
  float64.layer.dtype = SYNCBN_FLOAT64;
  check_launches(float64, 2);
  Config narrow_rows(6, {{20, 1}});
  check_launches(narrow_rows, 2);
  Config misaligned(8, {{20, 1}});
  misaligned.placement.misaligned = 1;
  check_launches(misaligned, 2);
  Config masked(8, {{20, 1}});
  masked.masked = Masked::kRows;
  check_launches(masked, 2);
  Config adjusted(8, {{20, 1}});
  adjusted.adjustment = true;
  check_launches(adjusted, 2);
}

TEST(halves_of_different_steps_are_refused) {
  Config config(8, {{20, 1}});
  Step step(config);
  const Replica &replica = *step.replicas[0];
  const syncbn_stats_args stats = replica.stats_args();
  const syncbn_normalize_args normalize = replica.normalize_args();
  const syncbn_backward_reduce_args reduce = replica.backward_reduce_args();
  const syncbn_backward_input_args input = replica.backward_input_args();
  const auto refuses = [](int32_t status, const char *text) {
    CHECK(status == SYNCBN_INVALID_ARGUMENT, "status is %d", status);
    CHECK(strstr(backend::last_error(), text), "'%s' does not say '%s'", backend::last_error(), text);
  };
  syncbn_normalize_args other = normalize;
  other.outer = 19;
  refuses(syncbn_cuda_forward(&stats, &other), "outer is 0x14 and 0x13");
  other = normalize;
  other.x += 16;
  refuses(syncbn_cuda_forward(&stats, &other), "x is");
  other = normalize;
  other.statistics = SYNCBN_MOVING;
  refuses(syncbn_cuda_forward(&stats, &other), "statistics is 0");
  syncbn_stats_args two = stats;
  two.world_size = 2;
  refuses(syncbn_cuda_forward(&two, &normalize), "world_size is 2 and 1");
  syncbn_backward_input_args elsewhere = input;
  elsewhere.dy += 16;
  refuses(syncbn_cuda_backward(&reduce, &elsewhere), "dy is");
  elsewhere = input;
  elsewhere.training = 0;
  refuses(syncbn_cuda_backward(&reduce, &elsewhere), "training is 0");
}

}  // namespace test
