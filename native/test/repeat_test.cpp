// The same inputs give the same bits: in the next run, in used workspace, and whatever ran before.
#include "step.h"

namespace test {
namespace {

struct Results {
  std::vector<double> forward, backward, saved;
  std::vector<float> y, dx, gamma_grad, beta_grad, moving_mean, moving_variance;
};

// One step of a single replica. workspace: another replica's, or 0 for its own.
Results run_alone(const Config &config, syncbn_address workspace) {
  Step step(config);
  Replica &replica = *step.replicas[0];
  syncbn_stats_args stats = replica.stats_args();
  syncbn_normalize_args normalize = replica.normalize_args();
  syncbn_backward_reduce_args reduce = replica.backward_reduce_args();
  if (workspace != 0) stats.workspace = normalize.workspace = reduce.workspace = workspace;
  CHECK(backend::stats(&stats) == SYNCBN_OK, "%s", backend::last_error());
  CHECK(backend::normalize(&normalize) == SYNCBN_OK, "%s", backend::last_error());
  CHECK(backend::backward_reduce(&reduce) == SYNCBN_OK, "%s", backend::last_error());
  replica.backward_input(replica.backward_rows.download());
  return {replica.forward_rows.download(),
          replica.backward_rows.download(),
          replica.saved.download(),
          replica.y(),
          replica.dx(),
          replica.gamma_grad.download(),
          replica.beta_grad.download(),
          replica.moving_mean.download(),
          replica.moving_variance.download()};
}

template <typename T>
void check_same(const char *name, const std::vector<T> &a, const std::vector<T> &b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (memcmp(&a[i], &b[i], sizeof(T)) == 0) continue;
    failed(__FILE__, __LINE__, "%s[%zu] is %.17g, then %.17g", name, i, static_cast<double>(a[i]),
           static_cast<double>(b[i]));
    return;
  }
}

void check_same(const Results &a, const Results &b) {
  check_same("forward rows", a.forward, b.forward);
  check_same("backward rows", a.backward, b.backward);
  check_same("saved", a.saved, b.saved);
  check_same("y", a.y, b.y);
  check_same("dx", a.dx, b.dx);
  check_same("gamma_grad", a.gamma_grad, b.gamma_grad);
  check_same("beta_grad", a.beta_grad, b.beta_grad);
  check_same("moving_mean", a.moving_mean, b.moving_mean);
  check_same("moving_variance", a.moving_variance, b.moving_variance);
}

Config config_of(int64_t outer, int64_t channels) { return Config(channels, {outer}); }

}  // namespace

TEST(same_bits_in_every_run) {
  for (const int64_t channels : {3, 64, 257}) {
    const int64_t outer = backend::kMaxElements / channels;
    const Context context("%s [%lld, %lld]", backend::kName, static_cast<long long>(outer),
                          static_cast<long long>(channels));
    const Results first = run_alone(config_of(outer, channels), 0);
    for (int i = 0; i < 3; ++i) check_same(first, run_alone(config_of(outer, channels), 0));
  }
}

// Layers of several shapes take turns with one workspace, which was zeroed once.
TEST(workspace_is_left_ready) {
  constexpr int64_t kShapes[][2] = {{900, 8}, {30, 257}, {7, 1}, {0, 64}, {1500, 5}, {2, 1000}, {123, 64}};
  int64_t bytes = 0;
  for (const auto &shape : kShapes) bytes = std::max(bytes, backend::workspace_bytes(shape[1]));
  Buffer<char> workspace("shared workspace", bytes);
  workspace.upload(std::vector<char>(static_cast<size_t>(bytes)));
  for (int round = 0; round < 2; ++round) {
    for (const auto &shape : kShapes) {
      const Context context("%s [%lld, %lld], round %d", backend::kName, static_cast<long long>(shape[0]),
                            static_cast<long long>(shape[1]), round);
      const Config config = config_of(shape[0], shape[1]);
      check_same(run_alone(config, 0), run_alone(config, workspace.address()));
    }
  }
}

}  // namespace test
