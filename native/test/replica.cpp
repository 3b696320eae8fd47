#include "replica.h"

#include <string.h>

#include "backend.h"
#include "check.h"
#include "dtype.h"

namespace test {
namespace {

template <typename Args>
void run(const char *operation, int32_t (*call)(const Args *), const Args &args) {
  const int32_t status = call(&args);
  CHECK(status == SYNCBN_OK, "%s returned %d: %s", operation, status, backend::last_error());
}

int64_t size(const std::vector<double> &values) { return static_cast<int64_t>(values.size()); }

Tensor tensor_of(const char *name, const Layer &layer, const std::vector<double> &values, const Placement &placement) {
  return Tensor(name, layer.dtype, size(values), placement.misaligned);
}
Tensor parameter_of(const char *name, const Layer &layer, int64_t count, const Placement &placement) {
  return Tensor(name, test::parameter_of(layer.dtype), count, placement.misaligned);
}

// What the arguments of all four operations begin with.
template <typename Args>
Args begin_args(const Layer &layer, const Input &input, syncbn_address stream) {
  Args args = {};
  args.struct_size = sizeof args;
  args.dtype = layer.dtype;
  args.outer = input.outer;
  args.channels = layer.channels;
  args.inner = input.inner;
  args.world_size = layer.world_size;
  args.signature = layer.signature;
  args.stream = stream;
  return args;
}

}  // namespace

const char *const kStateNames[kStates] = {"moving_mean", "moving_variance", "moving_stddev", "renorm_mean",
                                          "renorm_stddev"};

Replica::Replica(const Layer &layer, int32_t rank, const Input &input, const Placement &placement)
    : layer_(layer),
      rank_(rank),
      input_(input),
      placement_(placement),
      x_(tensor_of("x", layer, input.x, placement)),
      y_(tensor_of("y", layer, input.x, placement)),
      residual_(tensor_of("residual", layer, input.residual, placement)),
      dy_(tensor_of("dy", layer, input.dy, placement)),
      dx_(tensor_of("dx", layer, input.dy, placement)),
      dresidual_(tensor_of("dresidual", layer, input.dy, placement)),
      adjust_scale_(parameter_of("adjust_scale", layer, size(input.adjust_scale), placement)),
      adjust_bias_(parameter_of("adjust_bias", layer, size(input.adjust_bias), placement)),
      gamma_(parameter_of("gamma", layer, size(layer.gamma), placement)),
      beta_(parameter_of("beta", layer, size(layer.beta), placement)),
      mask_("mask", static_cast<int64_t>(input.mask.bytes.size()), placement.misaligned),
      state_{parameter_of(kStateNames[0], layer, layer.channels, placement),
             parameter_of(kStateNames[1], layer, layer.channels, placement),
             parameter_of(kStateNames[2], layer, layer.channels, placement),
             parameter_of(kStateNames[3], layer, layer.channels, placement),
             parameter_of(kStateNames[4], layer, layer.channels, placement)},
      updates_("updates", 8, 8 * placement.misaligned),
      relu_mask("relu_mask", size(input.x), placement.misaligned),
      gamma_grad(parameter_of("gamma_grad", layer, layer.channels, placement)),
      beta_grad(parameter_of("beta_grad", layer, layer.channels, placement)),
      forward_rows("forward rows", SYNCBN_FLOAT64, layer.world_size * layer.forward_row(), placement.misaligned),
      backward_rows("backward rows", SYNCBN_FLOAT64, layer.world_size * layer.backward_row(), placement.misaligned),
      saved("saved", SYNCBN_FLOAT64, 5 * layer.channels, placement.misaligned),
      workspace("workspace", backend::workspace_bytes(layer.channels), 8 * placement.misaligned),
      control(static_cast<syncbn_control *>(backend::allocate_shared(sizeof(syncbn_control)))),
      stream(backend::stream()) {
  restore_inputs();
  adjust_scale_.upload(input.adjust_scale);
  adjust_bias_.upload(input.adjust_bias);
  gamma_.upload(layer.gamma);
  beta_.upload(layer.beta);
  mask_.upload_bytes(input.mask.bytes);
  set_state(layer.state);
  workspace.upload_bytes(Bytes(static_cast<size_t>(backend::workspace_bytes(layer.channels))));
}

Replica::~Replica() {
  backend::synchronize();
  backend::release_shared(control);
}

void Replica::restore_inputs() {
  x_.upload(input_.x);
  residual_.upload(input_.residual);
  dy_.upload(input_.dy);
}

State Replica::state() const {
  State state;
  for (size_t i = 0; i < kStates; ++i) state.values[i] = state_[i].download();
  memcpy(&state.updates, updates_.download_bytes().data(), sizeof state.updates);
  return state;
}

void Replica::set_state(const State &state) {
  for (size_t i = 0; i < kStates; ++i) state_[i].upload(state.values[i]);
  Bytes bytes(sizeof state.updates);
  memcpy(bytes.data(), &state.updates, sizeof state.updates);
  updates_.upload_bytes(bytes);
}

const Tensor &Replica::y() const {
  switch (placement_.y) {
    case Over::kX:
      return x_;
    case Over::kResidual:
      return residual_;
    default:
      return y_;
  }
}

template <typename Args>
void Replica::set_mask(Args &args) const {
  args.mask = mask_.address();
  args.mask_outer_stride = input_.mask.outer;
  args.mask_channel_stride = input_.mask.channel;
  args.mask_inner_stride = input_.mask.inner;
}

template <typename Args>
void Replica::set_factors(Args &args) const {
  args.gamma = gamma_.address();
  args.beta = beta_.address();
  args.adjust_scale = adjust_scale_.address();
  args.adjust_bias = adjust_bias_.address();
}

syncbn_stats_args Replica::stats_args() const {
  auto args = begin_args<syncbn_stats_args>(layer_, input_, stream);
  args.rank = rank_;
  args.x = x_.address();
  args.rows = forward_rows.address();
  args.workspace = workspace.address();
  set_mask(args);
  args.channel_counts = layer_.channel_counts;
  return args;
}

syncbn_normalize_args Replica::normalize_args() const {
  auto args = begin_args<syncbn_normalize_args>(layer_, input_, stream);
  args.statistics = SYNCBN_BATCH;
  args.epsilon = layer_.epsilon;
  args.decay = layer_.decay;
  args.x = x_.address();
  args.y = y().address();
  set_factors(args);
  args.rows = forward_rows.address();
  args.moving_mean = state_[kMovingMean].address();
  args.moving_variance = state_[kMovingVariance].address();
  args.saved = saved.address();
  args.control = reinterpret_cast<syncbn_address>(control);
  args.workspace = workspace.address();
  args.channel_counts = layer_.channel_counts;
  args.relu = layer_.relu;
  args.residual = residual_.address();
  args.relu_mask = relu_mask.address();
  args.renorm = layer_.renorm;
  args.unbiased = layer_.unbiased;
  args.cumulative = layer_.cumulative;
  args.updates = updates_.address();
  if (!layer_.renorm) return args;
  args.renorm_decay = layer_.renorm_decay;
  args.r_min = layer_.r_min;
  args.r_max = layer_.r_max;
  args.d_max = layer_.d_max;
  args.moving_stddev = state_[kMovingStddev].address();
  args.renorm_mean = state_[kRenormMean].address();
  args.renorm_stddev = state_[kRenormStddev].address();
  return args;
}

// What the other statistics do not use is absent.
syncbn_normalize_args Replica::inference_args() const {
  syncbn_normalize_args args = normalize_args();
  args.statistics = SYNCBN_MOVING;
  args.rows = args.control = args.workspace = args.updates = 0;
  args.moving_stddev = args.renorm_mean = args.renorm_stddev = 0;
  return args;
}

syncbn_normalize_args Replica::recompute_args() const {
  syncbn_normalize_args args = inference_args();
  args.statistics = SYNCBN_SAVED;
  args.moving_mean = args.moving_variance = 0;
  return args;
}

syncbn_backward_reduce_args Replica::backward_reduce_args() const {
  auto args = begin_args<syncbn_backward_reduce_args>(layer_, input_, stream);
  args.rank = rank_;
  args.x = x_.address();
  args.dy = dy_.address();
  args.saved = saved.address();
  args.rows = backward_rows.address();
  args.gamma_grad = gamma_grad.address();
  args.beta_grad = beta_grad.address();
  args.workspace = workspace.address();
  set_mask(args);
  set_factors(args);
  args.relu_mask = layer_.relu && !layer_.relu_again ? relu_mask.address() : 0;
  args.dresidual = input_.residual.empty() ? 0 : dresidual().address();
  args.relu = layer_.relu;
  return args;
}

syncbn_backward_input_args Replica::backward_input_args() const {
  auto args = begin_args<syncbn_backward_input_args>(layer_, input_, stream);
  args.training = 1;
  args.x = x_.address();
  args.dy = input_.residual.empty() ? dy_.address() : dresidual().address();
  args.dx = dx().address();
  args.saved = saved.address();
  args.rows = backward_rows.address();
  args.control = reinterpret_cast<syncbn_address>(control);
  set_factors(args);
  set_mask(args);
  args.relu = layer_.relu && input_.residual.empty();
  return args;
}

void Replica::stats() { run("stats", backend::stats, stats_args()); }

void Replica::normalize(const std::vector<double> &rows) {
  forward_rows.upload(rows);
  run("normalize", backend::normalize, normalize_args());
}

void Replica::infer() { run("normalize", backend::normalize, inference_args()); }
void Replica::recompute() { run("normalize", backend::normalize, recompute_args()); }
void Replica::backward_reduce() { run("backward_reduce", backend::backward_reduce, backward_reduce_args()); }

void Replica::backward_input(const std::vector<double> &rows) {
  backward_rows.upload(rows);
  run("backward_input", backend::backward_input, backward_input_args());
}

void Replica::backward_reduce_without_rows() {
  syncbn_backward_reduce_args args = backward_reduce_args();
  args.rows = 0;
  run("backward_reduce", backend::backward_reduce, args);
}

void Replica::backward_input_of_inference() {
  syncbn_backward_input_args args = backward_input_args();
  args.training = 0;
  args.rows = args.control = 0;
  if (args.relu == 0) args.x = 0;
  run("backward_input", backend::backward_input, args);
}

std::vector<double> all_reduce(const std::vector<std::vector<double>> &rows) {
  std::vector<double> sum = rows[0];
  for (size_t rank = 1; rank < rows.size(); ++rank) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += rows[rank][i];
  }
  return sum;
}

}  // namespace test
