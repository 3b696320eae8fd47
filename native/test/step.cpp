#include "step.h"

#include <string.h>

#include <cmath>

#include "backend.h"
#include "check.h"
#include "dtype.h"

namespace test {
namespace {

void make_layer(const Config &config, Random &random, Layer &layer) {
  layer.world_size = static_cast<int32_t>(config.extents.size());
  const int32_t parameter = parameter_of(layer.dtype);
  const auto parameters = [&](const std::function<double()> &make) {
    std::vector<double> values;
    for (int64_t c = 0; c < layer.channels; ++c) values.push_back(rounded(parameter, make()));
    return values;
  };
  const std::vector<double> gamma = parameters([&] { return 1 + 0.5 * random.normal(); });
  const std::vector<double> beta = parameters([&] { return random.normal(); });
  if (config.gamma && layer.gamma.empty()) layer.gamma = gamma;
  if (config.beta && layer.beta.empty()) layer.beta = beta;
  for (const int which : {kMovingMean, kRenormMean}) {
    layer.state.values[which] = parameters([&] { return config.scale * random.normal(); });
  }
  for (const int which : {kMovingVariance, kMovingStddev, kRenormStddev}) {
    layer.state.values[which] = parameters([&] { return config.scale * (0.5 + random.uniform()); });
  }
  layer.state.values[kRenormStddev][0] = 0;  // renorm divides by sqrt(epsilon)
  layer.state.updates = 6;
}

Mask make_mask(Masked masked, const Input &input, int64_t channels, Random &random) {
  Mask mask;
  const auto fill = [&](int64_t bytes) {
    for (int64_t i = 0; i < bytes; ++i)
      mask.bytes.push_back(static_cast<unsigned char>(random.chance(3) ? 0 : 1 + random.below(255)));
  };
  switch (masked) {
    case Masked::kNothing:
      return mask;
    case Masked::kRows:
      mask.outer = 1;
      break;
    case Masked::kChannels:
      mask.outer = channels;
      mask.channel = 1;
      break;
    case Masked::kEverywhere:
      mask.outer = channels * input.inner;
      mask.channel = input.inner;
      mask.inner = 1;
      break;
    case Masked::kSharedByChannels:
      mask.outer = input.inner;
      mask.inner = 1;
      break;
  }
  fill(std::max<int64_t>(1, input.outer * mask.outer));
  return mask;
}

std::vector<Input> make_inputs(const Config &config, const Layer &layer, Random &random) {
  std::vector<Input> inputs;
  for (const auto &extents : config.extents) {
    Input input;
    input.outer = extents[0];
    input.inner = extents[1];
    for (int64_t i = 0; i < input.outer * layer.channels * input.inner; ++i) {
      const int64_t c = i / input.inner % layer.channels;
      const double sigma = config.scale * static_cast<double>(1 << (c % 3));
      const double mean = (c % 2 ? -1 : 1) * config.offset * sigma;
      input.x.push_back(mean + sigma * random.normal());
      input.dy.push_back(0.25 + random.normal());
      if (config.residual) input.residual.push_back(random.normal());
      if (!config.adjustment) continue;
      input.adjust_scale.push_back(1 + 0.5 * random.normal());
      input.adjust_bias.push_back(0.5 * random.normal());
    }
    input.mask = make_mask(config.masked, input, layer.channels, random);
    inputs.push_back(std::move(input));
  }
  if (config.edit) config.edit(inputs);
  for (Input &input : inputs) {
    for (auto *values : {&input.x, &input.dy, &input.residual}) *values = rounded(layer.dtype, *values);
    for (auto *values : {&input.adjust_scale, &input.adjust_bias})
      *values = rounded(parameter_of(layer.dtype), *values);
  }
  return inputs;
}

}  // namespace

std::string Config::text() const {
  std::string text = std::string(backend::kName) + " " + name_of(layer.dtype);
  for (const auto &extent : extents) {
    text += " [" + std::to_string(extent[0]) + ", " + std::to_string(layer.channels) + ", " +
            std::to_string(extent[1]) + "]";
  }
  const auto add = [&](bool condition, const char *name) {
    if (condition) text += std::string(" ") + name;
  };
  add(gamma, "gamma");
  add(beta, "beta");
  add(residual, "residual");
  add(adjustment, "adjustment");
  add(layer.relu, layer.relu_again ? "relu-again" : "relu");
  add(layer.renorm, "renorm");
  add(layer.unbiased, "unbiased");
  add(layer.cumulative, "cumulative");
  add(layer.channel_counts, "channel_counts");
  add(masked != Masked::kNothing, ("mask" + std::to_string(static_cast<int>(masked))).c_str());
  add(placement.y == Over::kX, "y=x");
  add(placement.y == Over::kResidual, "y=residual");
  add(placement.dresidual_over_dy, "dresidual=dy");
  add(placement.dx_over_dy, "dx=dy");
  add(placement.misaligned != 0, ("misaligned " + std::to_string(placement.misaligned)).c_str());
  char numbers[200];
  snprintf(numbers, sizeof numbers, " offset %g epsilon %g decay %g r %g..%g d %g", offset, layer.epsilon, layer.decay,
           layer.r_min, layer.r_max, layer.d_max);
  return text + numbers;
}

Step::Step(const Config &config) : layer(config.layer) {
  Random random(config.seed);
  make_layer(config, random, layer);
  const std::vector<Input> inputs = make_inputs(config, layer, random);
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    replicas.push_back(std::make_unique<Replica>(layer, rank, inputs[static_cast<size_t>(rank)], config.placement));
  }
}

std::vector<double> Step::reduce_forward() {
  std::vector<std::vector<double>> rows;
  for (const auto &replica : replicas) replica->stats();
  for (const auto &replica : replicas) rows.push_back(replica->forward_rows.download());
  return all_reduce(rows);
}

std::vector<double> Step::reduce_backward() {
  std::vector<std::vector<double>> rows;
  for (const auto &replica : replicas) replica->restore_inputs();
  for (const auto &replica : replicas) replica->backward_reduce();
  for (const auto &replica : replicas) rows.push_back(replica->backward_rows.download());
  return all_reduce(rows);
}

void Step::check_whole_batch(const std::vector<Statistics> &statistics) const {
  std::vector<const Input *> inputs;
  for (const auto &replica : replicas) inputs.push_back(&replica->input());
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Moments want = moments(inputs, layer.channels, c);
    const Statistics &got = statistics[static_cast<size_t>(c)];
    compare("count of the batch", c, got.count, want.count, 0);
    if (want.count == 0) continue;
    // The bounds of check_stats, which merging the ranks does not widen.
    const Real variance = want.m2 / want.count;
    compare("mean of the batch", c, got.mean, want.mean, mean_tolerance(layer.dtype, want));
    compare("variance of the batch", c, got.variance, variance, m2_tolerance(layer.dtype, want) / want.count);
  }
}

void Step::forward() {
  for (const auto &replica : replicas) replica->restore_inputs();
  const std::vector<double> rows = reduce_forward();
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    check_stats(layer, rank, *replicas[static_cast<size_t>(rank)]);
  }
  const std::vector<Statistics> statistics = merge(layer, rows);
  check_whole_batch(statistics);
  const State before = replicas[0]->state();
  const auto results = [&] {
    const Replica &alone = *replicas[0];
    return std::vector<Bytes>{alone.forward_rows.download_bytes(), alone.saved.download_bytes(),
                              alone.y().download_bytes(), alone.relu_mask.download_bytes()};
  };
  for (const auto &replica : replicas) {
    const Context context("rank %zd", &replica - replicas.data());
    replica->normalize(rows);
    check_saved(layer, *replica, statistics, before, true);
    check_y(layer, *replica);
    const State after = replica->state();
    check_state(layer, before, after, statistics);
    CHECK(same_bits(after, replicas[0]->state()), "the state is not that of rank 0, bit for bit");
    CHECK(replica->control->mismatch == 0, "control: mismatch is %u", replica->control->mismatch);
  }
  if (!backend::kHasDirections || layer.world_size > 1) return;
  const Context context("forward as one call");
  Replica &alone = *replicas[0];
  const std::vector<Bytes> want = results();
  const State after = alone.state();
  alone.set_state(before);
  alone.restore_inputs();
  alone.forward_rows.upload(std::vector<double>(rows.size(), kNan));
  forward_at_once();
  CHECK(results() == want, "rows, saved, y or relu_mask have other bits");
  CHECK(same_bits(alone.state(), after), "the state has other bits");
  CHECK(alone.control->mismatch == 0, "control: mismatch is %u", alone.control->mismatch);
}

void Step::backward() {
  const std::vector<double> rows = reduce_backward();
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    const Context context("rank %d", rank);
    Replica &replica = *replicas[static_cast<size_t>(rank)];
    check_backward_reduce(layer, rank, replica, true);
    replica.backward_input(rows);
    check_backward_input(layer, replica, rows);
    CHECK(replica.control->mismatch == 0, "control: mismatch is %u", replica.control->mismatch);
  }
  if (!backend::kHasDirections || layer.world_size > 1) return;
  const Context context("backward as one call");
  Replica &alone = *replicas[0];
  const auto results = [&] {
    return std::vector<Bytes>{alone.backward_rows.download_bytes(), alone.gamma_grad.download_bytes(),
                              alone.beta_grad.download_bytes(), alone.dx().download_bytes(),
                              alone.input().residual.empty() || &alone.dx() == &alone.dresidual()
                                  ? Bytes()
                                  : alone.dresidual().download_bytes()};
  };
  const std::vector<Bytes> want = results();
  alone.restore_inputs();
  alone.backward_rows.upload(std::vector<double>(rows.size(), kNan));
  backward_at_once();
  CHECK(results() == want, "rows, gradients, dx or dresidual have other bits");
  CHECK(alone.control->mismatch == 0, "control: mismatch is %u", alone.control->mismatch);
}

void Step::run() {
  forward();
  backward();
}

void Step::forward_at_once() {
  Replica &replica = *replicas[0];
  const syncbn_stats_args stats = replica.stats_args();
  const syncbn_normalize_args normalize = replica.normalize_args();
  CHECK(backend::forward(&stats, &normalize) == SYNCBN_OK, "%s", backend::last_error());
}

void Step::backward_at_once() {
  Replica &replica = *replicas[0];
  const syncbn_backward_reduce_args reduce = replica.backward_reduce_args();
  const syncbn_backward_input_args input = replica.backward_input_args();
  CHECK(backend::backward(&reduce, &input) == SYNCBN_OK, "%s", backend::last_error());
}

void Step::recompute() {
  for (const auto &replica : replicas) {
    const Context context("recomputation, rank %zd", &replica - replicas.data());
    const State state = replica->state();
    const Bytes saved = replica->saved.download_bytes();
    const Bytes y = replica->y().download_bytes();
    const Bytes relu_mask = replica->relu_mask.download_bytes();
    replica->restore_inputs();
    replica->recompute();
    CHECK(replica->y().download_bytes() == y, "y has other bits");
    CHECK(replica->relu_mask.download_bytes() == relu_mask, "relu_mask has other bits");
    CHECK(replica->saved.download_bytes() == saved, "saved has changed");
    CHECK(same_bits(replica->state(), state), "the state has changed");
  }
}

void Step::infer() {
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    const Context context("inference, rank %d", rank);
    Replica &replica = *replicas[static_cast<size_t>(rank)];
    replica.restore_inputs();
    const State before = replica.state();
    replica.infer();
    check_saved(layer, replica, moving_statistics(layer, before), before, false);
    check_y(layer, replica);
    CHECK(same_bits(before, replica.state()), "inference changed the state");
    replica.restore_inputs();
    replica.backward_reduce_without_rows();
    check_backward_reduce(layer, rank, replica, false);
    replica.backward_input_of_inference();
    check_backward_input(layer, replica, {});
  }
}

void check_step(const Config &config) {
  const Context context("%s", config.text().c_str());
  Step(config).run();
}

bool same_bits(const State &a, const State &b) {
  for (size_t which = 0; which < kStates; ++which) {
    const std::vector<double> &left = a.values[which];
    if (memcmp(left.data(), b.values[which].data(), left.size() * sizeof(double)) != 0) return false;
  }
  return a.updates == b.updates;
}

}  // namespace test
