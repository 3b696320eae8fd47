// All replicas of a process in one call: the bits of the operations one by one, in blocks of channels or not.
#include <string.h>

#include <string>

#include "backend.h"
#include "check.h"
#include "step.h"

namespace test {
namespace {

// The addresses of what all replicas are called with.
template <typename Args>
class ArgsOf {
 public:
  ArgsOf(const Step &step, Args (Replica::*args)() const) {
    for (const auto &replica : step.replicas) args_.push_back(((*replica).*args)());
    for (const Args &each : args_) addresses_.push_back(reinterpret_cast<syncbn_address>(&each));
  }
  Args &operator[](size_t rank) { return args_[rank]; }
  const syncbn_address *addresses() const { return addresses_.data(); }

 private:
  std::vector<Args> args_;
  std::vector<syncbn_address> addresses_;
};

int32_t count(const Step &step) { return static_cast<int32_t>(step.replicas.size()); }

void forward(const Step &step) {
  const ArgsOf<syncbn_stats_args> stats(step, &Replica::stats_args);
  const ArgsOf<syncbn_normalize_args> normalize(step, &Replica::normalize_args);
  CHECK(syncbn_cpu_forward(count(step), stats.addresses(), normalize.addresses()) == SYNCBN_OK, "%s",
        backend::last_error());
}

void backward(const Step &step) {
  const ArgsOf<syncbn_backward_reduce_args> reduce(step, &Replica::backward_reduce_args);
  const ArgsOf<syncbn_backward_input_args> input(step, &Replica::backward_input_args);
  CHECK(syncbn_cpu_backward(count(step), reduce.addresses(), input.addresses()) == SYNCBN_OK, "%s",
        backend::last_error());
}

using Results = std::vector<std::pair<const char *, Bytes>>;

Results after_forward(const Replica &replica) {
  return {{"y", replica.y().download_bytes()},
          {"relu_mask", replica.relu_mask.download_bytes()},
          {"rows", replica.forward_rows.download_bytes()},
          {"saved", replica.saved.download_bytes()}};
}

Results after_backward(const Replica &replica) {
  return {{"dx", replica.dx().download_bytes()},
          {"dresidual", replica.dresidual().download_bytes()},
          {"rows", replica.backward_rows.download_bytes()},
          {"gamma_grad", replica.gamma_grad.download_bytes()},
          {"beta_grad", replica.beta_grad.download_bytes()}};
}

void check_same(const Step &a, const Step &b, Results (*results)(const Replica &)) {
  for (size_t rank = 0; rank < a.replicas.size(); ++rank) {
    const Results results_a = results(*a.replicas[rank]);
    const Results results_b = results(*b.replicas[rank]);
    for (size_t i = 0; i < results_a.size(); ++i) {
      CHECK(results_a[i].second == results_b[i].second, "%s of replica %zu has other bits", results_a[i].first, rank);
    }
    CHECK(same_bits(a.replicas[rank]->state(), b.replicas[rank]->state()), "the state of replica %zu differs", rank);
  }
}

void check_together(const Config &config) {
  const Context context("%s", config.text().c_str());
  Step apart(config);
  const Step together(config);
  apart.forward();
  forward(together);
  check_same(apart, together, after_forward);
  // y may have been written over them.
  for (const Step *step : {static_cast<const Step *>(&apart), &together}) {
    for (const auto &replica : step->replicas) replica->restore_inputs();
  }
  apart.backward();
  backward(together);
  check_same(apart, together, after_backward);
}

Config config_of(int32_t dtype, int64_t channels, std::vector<std::array<int64_t, 2>> extents) {
  Config config(channels, std::move(extents));
  config.layer.dtype = dtype;
  config.layer.world_size = static_cast<int32_t>(config.extents.size());
  return config;
}

}  // namespace

// Tiles of many channels, of few, and channels that are cut into pieces.
TEST(together_gives_the_bits_of_one_by_one) {
  check_together(config_of(SYNCBN_FLOAT32, 300, {{8, 49}}));
  check_together(config_of(SYNCBN_FLOAT64, 150, {{3, 196}, {5, 196}}));
  check_together(config_of(SYNCBN_BFLOAT16, 60, {{4, 784}, {0, 784}, {7, 784}}));
  check_together(config_of(SYNCBN_FLOAT32, 30, {{2, 5000}, {1, 5000}}));
  check_together(config_of(SYNCBN_FLOAT16, 129, {{0, 64}, {33, 64}}));
}

TEST(together_with_options_too) {
  Config config = config_of(SYNCBN_FLOAT32, 300, {{5, 49}, {3, 49}});
  config.layer.relu = true;
  config.layer.renorm = true;
  config.residual = true;
  check_together(config);
  config.placement.y = Over::kX;
  config.placement.dx_over_dy = true;
  config.placement.dresidual_over_dy = true;
  config.layer.renorm = false;
  config.layer.unbiased = config.layer.cumulative = true;
  check_together(config);
  config = config_of(SYNCBN_BFLOAT16, 300, {{9, 49}});
  config.layer.relu = config.layer.relu_again = true;
  config.layer.channel_counts = true;
  check_together(config);
}

// Masks, adjustments, channels-last, other shapes on other replicas, nothing at all.
TEST(together_where_no_blocks_are) {
  check_together(config_of(SYNCBN_FLOAT32, 257, {{40, 1}, {30, 1}}));
  check_together(config_of(SYNCBN_FLOAT32, 3, {{1, 16}}));
  check_together(config_of(SYNCBN_FLOAT32, 200, {{3, 64}, {3, 49}}));
  check_together(config_of(SYNCBN_FLOAT32, 200, {{0, 64}, {0, 64}}));
  Config config = config_of(SYNCBN_FLOAT32, 130, {{3, 49}, {2, 49}});
  config.masked = Masked::kEverywhere;
  config.layer.channel_counts = true;
  check_together(config);
  config = config_of(SYNCBN_FLOAT32, 130, {{3, 49}});
  config.adjustment = true;
  check_together(config);
}

// More threads than processors, so that one may be held up in the first block while others are in later ones.
TEST(together_with_many_threads) {
  const Config config = config_of(SYNCBN_FLOAT32, 1024, {{6, 49}});
  Step apart(config);
  apart.forward();
  syncbn_address pool = 0;
  CHECK(syncbn_cpu_pool_create(16, &pool) == SYNCBN_OK, "%s", backend::last_error());
  const Step together(config);
  together.replicas[0]->stream = pool;
  const std::vector<double> nothing(static_cast<size_t>(together.layer.forward_row()), kNan);
  for (int i = 0; i < 300; ++i) {
    together.replicas[0]->forward_rows.upload(nothing);
    forward(together);
    CHECK(apart.replicas[0]->y().download_bytes() == together.replicas[0]->y().download_bytes(),
          "y has other bits in run %d", i);
  }
  CHECK(syncbn_cpu_pool_destroy(pool) == SYNCBN_OK, "%s", backend::last_error());
}

// A mismatch changes no state, in blocks neither.
TEST(together_with_a_mismatch) {
  const Step step(config_of(SYNCBN_FLOAT32, 300, {{5, 49}, {3, 49}}));
  ArgsOf<syncbn_stats_args> stats(step, &Replica::stats_args);
  const ArgsOf<syncbn_normalize_args> normalize(step, &Replica::normalize_args);
  stats[1].signature = 77;
  const State before = step.replicas[0]->state();
  CHECK(syncbn_cpu_forward(2, stats.addresses(), normalize.addresses()) == SYNCBN_OK, "%s", backend::last_error());
  CHECK(same_bits(step.replicas[0]->state(), before), "the state changed");
  CHECK(step.replicas[0]->control->mismatch == 2, "mismatch is %u", step.replicas[0]->control->mismatch);
}

TEST(together_refuses) {
  const Step step(config_of(SYNCBN_FLOAT32, 20, {{2, 49}, {3, 49}}));
  ArgsOf<syncbn_stats_args> stats(step, &Replica::stats_args);
  ArgsOf<syncbn_normalize_args> normalize(step, &Replica::normalize_args);
  const State before = step.replicas[0]->state();
  const auto check_refused = [&](int32_t replicas, const char *reason) {
    CHECK(syncbn_cpu_forward(replicas, stats.addresses(), normalize.addresses()) == SYNCBN_INVALID_ARGUMENT,
          "expected: %s", reason);
    CHECK(strstr(backend::last_error(), reason) != nullptr, "%s; expected: %s", backend::last_error(), reason);
  };
  check_refused(0, "replicas is 0; it must be at least 1");
  check_refused(1, "replica 0 of 1 has rank 0 and world_size 2 and 2");
  stats[1].rank = 0;
  check_refused(2, "replica 1 of 2 has rank 0");
  stats[1].rank = 1;
  normalize[1].outer = 2;
  check_refused(2, "the operations of replica 1 differ in dtype or shape");
  normalize[1].outer = 3;
  normalize[1].rows = normalize[0].rows;
  check_refused(2, "replica 1 has not one rows for both operations");
  normalize[1].rows = stats[1].rows;
  stats[1].x = 0;
  check_refused(2, "x is null");
  CHECK(same_bits(step.replicas[0]->state(), before), "a refused step took place");
}

}  // namespace test
