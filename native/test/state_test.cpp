// When does a step change the state, and what does the host learn when it does not?
#include <string.h>

#include <cmath>

#include "backend.h"
#include "check.h"
#include "dtype.h"
#include "step.h"

namespace test {
namespace {

constexpr int64_t kChannels = 37;

Config three_ranks() {
  Config config(kChannels, {{20, 1}, {5, 1}, {80, 1}});
  config.layer.renorm = config.layer.cumulative = true;
  return config;
}

void check_state_untouched(const Layer &layer, const Replica &replica) {
  CHECK(same_bits(replica.state(), layer.state), "the state has changed");
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
  const std::vector<double> backward(static_cast<size_t>(3 * step.layer.backward_row()), 99);
  replica.backward_input(backward);
  check_control(replica, 0, 0, 0);
  CHECK(replica.control->aborted == 1, "aborted is %u", replica.control->aborted);
}

TEST(mismatch_changes_no_state_and_names_the_first_rank) {
  struct {
    double signatures[3];
    uint32_t mismatch;
    double found;
  } const cases[] = {
      {{3, 4, 3}, 2, 4}, {{3, 3, 0}, 3, 0}, {{3, 5, 6}, 2, 5}, {{8, 3, 3}, 1, 8}, {{3, kNan, 3}, 2, kNan},
  };
  for (const auto &c : cases) {
    for (const bool channel_counts : {false, true}) {
      const Context context("signatures %g %g %g", c.signatures[0], c.signatures[1], c.signatures[2]);
      Config config = three_ranks();
      config.layer.channel_counts = channel_counts;
      Step step(config);
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

TEST(steps_after_a_mismatch_change_no_state) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  const std::vector<double> good = step.reduce_forward();
  std::vector<double> rows = good;
  rows[static_cast<size_t>(2 * step.layer.forward_row())] = 20;
  replica.normalize(rows);
  replica.normalize(good);
  check_control(replica, 3, 3, 20);
  check_state_untouched(step.layer, replica);
}

TEST(batch_without_elements_changes_no_state) {
  for (const double epsilon : {1e-3, 0.0}) {  // with 0, 1 / sigma is infinite: sums of nothing are 0 all the same
    for (const int64_t inner : {1, 0}) {
      Config config(kChannels, {{0, inner}, {0, 5}, {7, 0}});
      config.layer.epsilon = epsilon;
      Step step(config);
      step.run();
      for (const auto &replica : step.replicas) {
        check_state_untouched(step.layer, *replica);
        for (const double value : replica->gamma_grad.download()) CHECK(value == 0, "gamma_grad is %g", value);
      }
    }
  }
}

TEST(empty_replica_updates_its_state) {
  Config config = three_ranks();
  config.extents = {{0, 1}, {50, 1}};
  Step step(config);
  step.run();
  CHECK(!same_bits(step.replicas[0]->state(), step.layer.state), "the state has not changed");
}

TEST(saved_may_be_absent) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  const std::vector<double> rows = step.reduce_forward();
  replica.forward_rows.upload(rows);
  syncbn_normalize_args args = replica.normalize_args();
  args.saved = 0;
  CHECK(backend::normalize(&args) == SYNCBN_OK, "%s", backend::last_error());
  check_state(step.layer, step.layer.state, replica.state(), merge(step.layer, rows));
  for (const double value : replica.saved.download()) CHECK(std::isnan(value), "saved was written");
}

TEST(updates_may_be_absent) {
  Config config = three_ranks();
  config.layer.cumulative = false;
  Step step(config);
  Replica &replica = *step.replicas[0];
  const std::vector<double> rows = step.reduce_forward();
  replica.forward_rows.upload(rows);
  syncbn_normalize_args args = replica.normalize_args();
  args.updates = 0;
  CHECK(backend::normalize(&args) == SYNCBN_OK, "%s", backend::last_error());
  State after = replica.state();
  CHECK(after.updates++ == step.layer.state.updates, "updates was written");
  check_state(step.layer, step.layer.state, after, merge(step.layer, rows));
}

TEST(gradients_may_be_absent) {
  Step step(three_ranks());
  Replica &replica = *step.replicas[0];
  replica.normalize(step.reduce_forward());
  replica.backward_reduce();
  const Bytes want = replica.backward_rows.download_bytes();
  replica.gamma_grad.upload(std::vector<double>(kChannels, 5));
  replica.beta_grad.upload(std::vector<double>(kChannels, 6));
  for (const bool gamma : {false, true}) {
    syncbn_backward_reduce_args args = replica.backward_reduce_args();
    const Tensor &gradient = gamma ? replica.gamma_grad : replica.beta_grad;
    (gamma ? args.gamma_grad : args.beta_grad) = 0;
    const Bytes before = gradient.download_bytes();
    CHECK(backend::backward_reduce(&args) == SYNCBN_OK, "%s", backend::last_error());
    CHECK(replica.backward_rows.download_bytes() == want, "the rows depend on the gradients wanted");
    CHECK(gradient.download_bytes() == before, "a gradient that is not wanted was written");
  }
}

}  // namespace test
