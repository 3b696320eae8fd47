// When does a step change the moving statistics, and what does the host learn when it does not?
#include <cmath>
#include <limits>

#include "step.h"

namespace test {
namespace {

constexpr int64_t kChannels = 37;

Config three_ranks() {
  Config config(kChannels, {20, 5, 80});
  return config;
}

template <typename T>
bool same_bits(const std::vector<T> &a, const std::vector<T> &b) {
  return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void check_state_untouched(const Layer &layer, const Replica &replica) {
  CHECK(same_bits(replica.moving_mean.download(), layer.moving_mean), "moving_mean has changed");
  CHECK(same_bits(replica.moving_variance.download(), layer.moving_variance), "moving_variance has changed");
}

void check_control(const Replica &replica, uint32_t mismatch, double expected, double found) {
  backend::synchronize();
  const syncbn_control &control = *replica.control;
  CHECK(control.mismatch == mismatch, "mismatch is %u, want %u", control.mismatch, mismatch);
  CHECK(control.expected == expected, "expected is %g, want %g", control.expected, expected);
  CHECK(control.found == found || (std::isnan(control.found) && std::isnan(found)), "found is %g, want %g",
        control.found, found);
}

}  // namespace

TEST(aborted_step_changes_no_state) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  std::vector<double> rows = step.reduce_forward();
  replica.control->aborted = 1;
  // A given-up all-reduce leaves anything: that must not be reported as a mismatch.
  rows[static_cast<size_t>(step.layer.forward_row())] = 99;
  replica.normalize(rows);
  check_state_untouched(step.layer, replica);
  check_control(replica, 0, 0, 0);

  replica.backward_reduce();
  std::vector<double> backward(static_cast<size_t>(3 * step.layer.backward_row()), 99);
  replica.backward_input(backward);
  check_control(replica, 0, 0, 0);
  CHECK(replica.control->aborted == 1, "aborted is %u", replica.control->aborted);
}

TEST(mismatch_changes_no_state_and_names_the_first_rank) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  struct {
    double signatures[3];
    uint32_t mismatch;
    double found;
  } const cases[] = {
      {{3, 4, 3}, 2, 4}, {{3, 3, 0}, 3, 0}, {{3, 5, 6}, 2, 5}, {{8, 3, 3}, 1, 8}, {{3, nan, 3}, 2, nan},
  };
  for (const auto &c : cases) {
    const Context context("%s, signatures %g %g %g", backend::kName, c.signatures[0], c.signatures[1], c.signatures[2]);
    Step step(three_ranks());
    Replica &replica = *step.replicas[0];
    std::vector<double> forward = step.reduce_forward();
    for (size_t rank = 0; rank < 3; ++rank) {
      forward[rank * static_cast<size_t>(step.layer.forward_row())] = c.signatures[rank];
    }
    replica.normalize(forward);
    check_state_untouched(step.layer, replica);
    check_control(replica, c.mismatch, 3, c.found);
  }
}

TEST(mismatch_in_backward_is_reported) {
  Step step(three_ranks());
  const std::vector<double> forward = step.reduce_forward();
  for (const auto &replica : step.replicas) replica->normalize(forward);
  std::vector<double> backward = step.reduce_backward();
  backward[static_cast<size_t>(2 * step.layer.backward_row())] = 11;
  Replica &replica = *step.replicas[1];
  replica.backward_input(backward);
  check_control(replica, 3, 3, 11);
}

TEST(first_mismatch_stays) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  std::vector<double> rows = step.reduce_forward();
  rows[static_cast<size_t>(2 * step.layer.forward_row())] = 20;
  replica.normalize(rows);
  check_control(replica, 3, 3, 20);
  rows[static_cast<size_t>(step.layer.forward_row())] = 10;
  replica.normalize(rows);
  check_control(replica, 3, 3, 20);
  check_state_untouched(step.layer, replica);
}

TEST(batch_without_elements_changes_no_state) {
  for (const double epsilon : {1e-3, 0.0}) {  // with 0, 1 / sigma is infinite: sums of nothing are 0 all the same
    Config config(kChannels, {0, 0, 0});
    config.epsilon = epsilon;
    Step step(config);
    step.run();
    for (const auto &replica : step.replicas) {
      check_state_untouched(step.layer, *replica);
      const std::vector<float> gamma_grad = replica->gamma_grad.download();
      for (const float value : gamma_grad) CHECK(value == 0, "gamma_grad is %g", static_cast<double>(value));
    }
  }
}

TEST(empty_replica_updates_its_state) {
  Config config = three_ranks();
  config.outers = {0, 50};
  Step step(config);
  step.run();
  CHECK(!same_bits(step.replicas[0]->moving_mean.download(), step.layer.moving_mean), "moving_mean has not changed");
}

TEST(saved_may_be_absent) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  const std::vector<double> rows = step.reduce_forward();
  replica.forward_rows.upload(rows);
  syncbn_normalize_args args = replica.normalize_args();
  args.saved = 0;
  CHECK(backend::normalize(&args) == SYNCBN_OK, "%s", backend::last_error());
  check_moving(step.layer, replica, step.merged(rows));
  const std::vector<double> saved = replica.saved.download();
  for (const double value : saved) CHECK(std::isnan(value), "saved was written");
}

TEST(gradients_may_be_absent) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  replica.normalize(step.reduce_forward());
  replica.backward_reduce();
  const std::vector<double> want = replica.backward_rows.download();
  replica.gamma_grad.upload(std::vector<float>(kChannels, 5));
  replica.beta_grad.upload(std::vector<float>(kChannels, 6));
  for (const bool gamma : {false, true}) {
    syncbn_backward_reduce_args args = replica.backward_reduce_args();
    (gamma ? args.gamma_grad : args.beta_grad) = 0;
    const std::vector<float> before = gamma ? replica.gamma_grad.download() : replica.beta_grad.download();
    CHECK(backend::backward_reduce(&args) == SYNCBN_OK, "%s", backend::last_error());
    CHECK(same_bits(replica.backward_rows.download(), want), "the rows depend on the gradients wanted");
    const std::vector<float> after = gamma ? replica.gamma_grad.download() : replica.beta_grad.download();
    CHECK(same_bits(before, after), "a gradient that is not wanted was written");
  }
}

TEST(inference_and_its_backward) {
  for (const int64_t channels : {1, 5, 64, 129}) {
    const Context context("%s, %lld channels", backend::kName, static_cast<long long>(channels));
    Config config(channels, {77});
    Step step(config);
    Replica &replica = *step.replicas[0];
    std::vector<Statistics> statistics;
    for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
      const double variance = static_cast<double>(step.layer.moving_variance[c]);
      statistics.push_back(
          {0, static_cast<double>(step.layer.moving_mean[c]), variance, 1 / std::sqrt(variance + step.layer.epsilon)});
    }
    replica.infer();
    check_normalize(step.layer, replica, statistics);
    check_state_untouched(step.layer, replica);
    replica.backward_reduce_without_rows();
    check_backward_reduce(step.layer, 0, replica, false);
    const std::vector<double> rows = replica.backward_rows.download();
    for (const double value : rows) CHECK(std::isnan(value), "rows were written");
    replica.backward_input_of_inference();
    check_backward_input(step.layer, replica, {});
  }
}

}  // namespace test
