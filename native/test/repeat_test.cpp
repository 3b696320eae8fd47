// The same inputs give the same bits: in the next run, at any address, in used workspace, and whatever ran before.
#include "backend.h"
#include "check.h"
#include "dtype.h"
#include "step.h"

namespace test {
namespace {

using Results = std::vector<std::pair<const char *, Bytes>>;

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
  Results results = {{"forward rows", replica.forward_rows.download_bytes()},
                     {"backward rows", replica.backward_rows.download_bytes()},
                     {"saved", replica.saved.download_bytes()},
                     {"y", replica.y().download_bytes()},
                     {"relu_mask", replica.relu_mask.download_bytes()},
                     {"gamma_grad", replica.gamma_grad.download_bytes()},
                     {"beta_grad", replica.beta_grad.download_bytes()}};
  const State state = replica.state();
  for (size_t i = 0; i < kStates; ++i) results.emplace_back(kStateNames[i], encode(SYNCBN_FLOAT64, state.values[i]));
  replica.backward_input(replica.backward_rows.download());
  results.emplace_back("dx", replica.dx().download_bytes());
  if (config.residual) results.emplace_back("dresidual", replica.dresidual().download_bytes());
  return results;
}

void check_same(const Results &a, const Results &b) {
  for (size_t i = 0; i < a.size(); ++i) CHECK(a[i].second == b[i].second, "%s has other bits", a[i].first);
}

// With every option on in one of two.
Config config_of(int32_t dtype, int64_t outer, int64_t channels, int64_t inner, bool options) {
  Config config(channels, {{outer, inner}});
  config.layer.dtype = dtype;
  if (!options) return config;
  config.layer.relu = config.layer.renorm = config.layer.channel_counts = true;
  config.adjustment = true;
  config.masked = Masked::kEverywhere;
  return config;
}

}  // namespace

TEST(same_bits_in_every_run) {
  constexpr int64_t kShapes[][2] = {{3, 1}, {64, 1}, {257, 1}, {3, 196}, {64, 7}};
  for (const auto &[channels, inner] : kShapes) {
    for (const int32_t dtype : {SYNCBN_FLOAT32, SYNCBN_BFLOAT16, SYNCBN_FLOAT64}) {
      const Config config =
          config_of(dtype, std::max<int64_t>(1, backend::kMaxElements / channels / inner), channels, inner, inner > 1);
      const Context context("%s", config.text().c_str());
      const Results first = run_alone(config, 0);
      for (int i = 0; i < 2; ++i) check_same(first, run_alone(config, 0));
    }
  }
}

// Which says how elements are loaded, and nothing else. Four elements of 16 bits are half a unit.
TEST(same_bits_at_every_address) {
  constexpr int64_t kShapes[][2] = {{72, 1}, {68, 1}, {5, 56}, {3, 196}};
  int turn = 0;
  for (const auto &[channels, inner] : kShapes) {
    for (const int32_t dtype : kDtypes) {
      Config config(channels, {{inner > 1 ? 3 : 70, inner}});
      config.layer.dtype = dtype;
      const int options = ++turn * 5 / 4 % 4;
      config.layer.relu = options != 0;
      config.residual = options % 2 == 0;
      config.layer.relu_again = config.layer.relu && !config.residual;
      const Context context("%s", config.text().c_str());
      const Results aligned = run_alone(config, 0);
      for (const int64_t misaligned : {1, 4}) {
        config.placement.misaligned = misaligned;
        const Context where("%lld elements on", static_cast<long long>(misaligned));
        check_same(aligned, run_alone(config, 0));
      }
    }
  }
}

// Layers of several shapes take turns with one workspace, which was zeroed once.
TEST(workspace_is_left_ready) {
  constexpr int64_t kShapes[][3] = {{900, 8, 1}, {30, 257, 1}, {7, 1, 1},    {0, 64, 1},   {1500, 5, 1},
                                    {9, 8, 49},  {1, 3, 2500}, {1, 1000, 1}, {123, 64, 1}, {2, 64, 64}};
  int64_t bytes = 0;
  for (const auto &shape : kShapes) bytes = std::max(bytes, backend::workspace_bytes(shape[1]));
  Buffer workspace("shared workspace", bytes);
  workspace.upload_bytes(Bytes(static_cast<size_t>(bytes)));
  for (int round = 0; round < 2; ++round) {
    int turn = round;
    for (const auto &[outer, channels, inner] : kShapes) {
      const int32_t dtype = dtype_of_turn(++turn);
      const Config config = config_of(dtype, outer, channels, inner, dtype % 2 == 0);
      const Context context("round %d, %s", round, config.text().c_str());
      check_same(run_alone(config, 0), run_alone(config, workspace.address()));
    }
  }
}

}  // namespace test
