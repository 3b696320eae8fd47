#include "replica.h"

namespace test {
namespace {

void expect_ok(const char *operation, int32_t status) {
  CHECK(status == SYNCBN_OK, "%s returned %d: %s", operation, status, backend::last_error());
}

int64_t size(const std::vector<float> &values) { return static_cast<int64_t>(values.size()); }

}  // namespace

Replica::Replica(const Layer &layer, int32_t rank, const Input &input, const Placement &placement)
    : layer_(layer),
      rank_(rank),
      input_(input),
      placement_(placement),
      x_("x", size(input.x), placement.misaligned),
      y_("y", size(input.x), placement.misaligned),
      dy_("dy", size(input.dy), placement.misaligned),
      dx_("dx", size(input.dy), placement.misaligned),
      gamma_("gamma", size(layer.gamma)),
      beta_("beta", size(layer.beta)),
      moving_mean("moving_mean", layer.channels),
      moving_variance("moving_variance", layer.channels),
      gamma_grad("gamma_grad", layer.channels),
      beta_grad("beta_grad", layer.channels),
      forward_rows("forward rows", layer.world_size * layer.forward_row()),
      backward_rows("backward rows", layer.world_size * layer.backward_row()),
      saved("saved", 1 + 2 * layer.channels),
      workspace("workspace", backend::workspace_bytes(layer.channels)),
      control(static_cast<syncbn_control *>(backend::allocate_shared(sizeof(syncbn_control)))) {
  x_.upload(input.x);
  dy_.upload(input.dy);
  gamma_.upload(layer.gamma);
  beta_.upload(layer.beta);
  moving_mean.upload(layer.moving_mean);
  moving_variance.upload(layer.moving_variance);
  workspace.upload(std::vector<char>(static_cast<size_t>(backend::workspace_bytes(layer.channels))));
}

Replica::~Replica() {
  backend::synchronize();
  backend::release_shared(control);
}

syncbn_stats_args Replica::stats_args() const {
  syncbn_stats_args args = {};
  args.struct_size = sizeof args;
  args.dtype = SYNCBN_FLOAT32;
  args.outer = outer();
  args.channels = layer_.channels;
  args.inner = 1;
  args.world_size = layer_.world_size;
  args.rank = rank_;
  args.signature = layer_.signature;
  args.x = x_.address();
  args.rows = forward_rows.address();
  args.workspace = workspace.address();
  args.stream = backend::stream();
  return args;
}

syncbn_normalize_args Replica::normalize_args() const {
  syncbn_normalize_args args = {};
  args.struct_size = sizeof args;
  args.dtype = SYNCBN_FLOAT32;
  args.outer = outer();
  args.channels = layer_.channels;
  args.inner = 1;
  args.world_size = layer_.world_size;
  args.training = 1;
  args.signature = layer_.signature;
  args.epsilon = layer_.epsilon;
  args.decay = layer_.decay;
  args.x = x_.address();
  args.y = placement_.y_over_x ? x_.address() : y_.address();
  args.gamma = layer_.gamma.empty() ? 0 : gamma_.address();
  args.beta = layer_.beta.empty() ? 0 : beta_.address();
  args.rows = forward_rows.address();
  args.moving_mean = moving_mean.address();
  args.moving_variance = moving_variance.address();
  args.saved = saved.address();
  args.control = reinterpret_cast<syncbn_address>(control);
  args.workspace = workspace.address();
  args.stream = backend::stream();
  return args;
}

syncbn_backward_reduce_args Replica::backward_reduce_args() const {
  syncbn_backward_reduce_args args = {};
  args.struct_size = sizeof args;
  args.dtype = SYNCBN_FLOAT32;
  args.outer = outer();
  args.channels = layer_.channels;
  args.inner = 1;
  args.world_size = layer_.world_size;
  args.rank = rank_;
  args.signature = layer_.signature;
  args.x = x_.address();
  args.dy = dy_.address();
  args.saved = saved.address();
  args.rows = backward_rows.address();
  args.gamma_grad = gamma_grad.address();
  args.beta_grad = beta_grad.address();
  args.workspace = workspace.address();
  args.stream = backend::stream();
  return args;
}

syncbn_backward_input_args Replica::backward_input_args() const {
  syncbn_backward_input_args args = {};
  args.struct_size = sizeof args;
  args.dtype = SYNCBN_FLOAT32;
  args.outer = outer();
  args.channels = layer_.channels;
  args.inner = 1;
  args.world_size = layer_.world_size;
  args.training = 1;
  args.signature = layer_.signature;
  args.x = x_.address();
  args.dy = dy_.address();
  args.dx = placement_.dx_over_dy ? dy_.address() : dx_.address();
  args.gamma = layer_.gamma.empty() ? 0 : gamma_.address();
  args.saved = saved.address();
  args.rows = backward_rows.address();
  args.control = reinterpret_cast<syncbn_address>(control);
  args.stream = backend::stream();
  return args;
}

void Replica::stats() {
  const syncbn_stats_args args = stats_args();
  expect_ok("stats", backend::stats(&args));
}

void Replica::normalize(const std::vector<double> &rows) {
  forward_rows.upload(rows);
  const syncbn_normalize_args args = normalize_args();
  expect_ok("normalize", backend::normalize(&args));
}

void Replica::infer() {
  syncbn_normalize_args args = normalize_args();
  args.training = 0;
  args.rows = args.control = args.workspace = 0;
  expect_ok("normalize", backend::normalize(&args));
}

void Replica::backward_reduce() {
  backend::synchronize();
  x_.upload(input_.x);  // y may have been written over it
  const syncbn_backward_reduce_args args = backward_reduce_args();
  expect_ok("backward_reduce", backend::backward_reduce(&args));
}

void Replica::backward_input(const std::vector<double> &rows) {
  backward_rows.upload(rows);
  const syncbn_backward_input_args args = backward_input_args();
  expect_ok("backward_input", backend::backward_input(&args));
}

void Replica::backward_reduce_without_rows() {
  backend::synchronize();
  x_.upload(input_.x);
  syncbn_backward_reduce_args args = backward_reduce_args();
  args.rows = 0;
  expect_ok("backward_reduce", backend::backward_reduce(&args));
}

void Replica::backward_input_of_inference() {
  syncbn_backward_input_args args = backward_input_args();
  args.training = 0;
  args.x = args.rows = args.control = 0;
  expect_ok("backward_input", backend::backward_input(&args));
}

std::vector<double> all_reduce(const std::vector<std::vector<double>> &rows) {
  std::vector<double> sum = rows[0];
  for (size_t rank = 1; rank < rows.size(); ++rank) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += rows[rank][i];
  }
  return sum;
}

}  // namespace test
