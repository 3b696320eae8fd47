#include "step.h"

#include <cmath>
#include <string>

namespace test {
namespace {

Layer make_layer(const Config &config, Random &random) {
  Layer layer;
  layer.channels = config.channels;
  layer.world_size = static_cast<int32_t>(config.outers.size());
  layer.epsilon = config.epsilon;
  layer.decay = config.decay;
  for (int64_t c = 0; c < config.channels; ++c) {
    if (config.gamma) layer.gamma.push_back(static_cast<float>(1 + 0.5 * random.normal()));
    if (config.beta) layer.beta.push_back(static_cast<float>(random.normal()));
    layer.moving_mean.push_back(static_cast<float>(random.normal()));
    layer.moving_variance.push_back(static_cast<float>(0.5 + random.uniform()));
  }
  return layer;
}

std::vector<Input> make_inputs(const Config &config, Random &random) {
  std::vector<Input> inputs(config.outers.size());
  for (size_t rank = 0; rank < inputs.size(); ++rank) {
    for (int64_t row = 0; row < config.outers[rank]; ++row) {
      for (int64_t c = 0; c < config.channels; ++c) {
        const double sigma = config.scale * static_cast<double>(1 << (c % 3));
        const double mean = (c % 2 ? -1 : 1) * config.offset * sigma;
        inputs[rank].x.push_back(static_cast<float>(mean + sigma * random.normal()));
        inputs[rank].dy.push_back(static_cast<float>(0.25 + random.normal()));
      }
    }
  }
  if (config.edit) config.edit(inputs);
  return inputs;
}

bool same_bits(const Buffer<float> &a, const Buffer<float> &b) {
  const std::vector<float> left = a.download();
  const std::vector<float> right = b.download();
  return memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
}

}  // namespace

Step::Step(const Config &config) {
  Random random(config.seed);
  layer = make_layer(config, random);
  const std::vector<Input> inputs = make_inputs(config, random);
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
  for (const auto &replica : replicas) replica->backward_reduce();
  for (const auto &replica : replicas) rows.push_back(replica->backward_rows.download());
  return all_reduce(rows);
}

std::vector<Statistics> Step::merged(const std::vector<double> &rows) const {
  std::vector<Statistics> statistics;
  for (int64_t c = 0; c < layer.channels; ++c) statistics.push_back(merge(layer, rows, c));
  return statistics;
}

void Step::check_whole_batch(const std::vector<Statistics> &statistics) const {
  std::vector<const std::vector<float> *> tensors;
  for (const auto &replica : replicas) tensors.push_back(&replica->input().x);
  for (int64_t c = 0; c < layer.channels; ++c) {
    const Moments want = moments(tensors, layer.channels, c);
    if (want.count == 0) continue;
    const Statistics &got = statistics[static_cast<size_t>(c)];
    // The bounds of check_stats, which merging the ranks does not widen.
    const double relative = backend::kRoundings * kHalfUlp;
    const double variance = want.m2 / want.count;
    compare("count of the batch", 0, c, got.count, want.count, 0);
    compare("mean of the batch", 0, c, got.mean, want.mean,
            2 * relative * std::sqrt(variance) + kDoubleTolerance * std::fabs(want.mean));
    compare("variance of the batch", 0, c, got.variance, variance,
            4 * relative * variance + std::pow(1e-15 * want.mean, 2) + kTiny);
  }
}

void Step::run() {
  const std::vector<double> forward = reduce_forward();
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    check_stats(layer, rank, *replicas[static_cast<size_t>(rank)]);
  }
  const std::vector<Statistics> statistics = merged(forward);
  check_whole_batch(statistics);
  const bool any = statistics[0].count > 0;
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    const Context context("rank %d of %d", rank, layer.world_size);
    Replica &replica = *replicas[static_cast<size_t>(rank)];
    replica.normalize(forward);
    check_normalize(layer, replica, statistics);
    if (any) check_moving(layer, replica, statistics);
    CHECK(replica.control->mismatch == 0, "control: mismatch is %u", replica.control->mismatch);
    CHECK(same_bits(replica.moving_mean, replicas[0]->moving_mean), "moving_mean is not that of rank 0, bit for bit");
    CHECK(same_bits(replica.moving_variance, replicas[0]->moving_variance),
          "moving_variance is not that of rank 0, bit for bit");
  }
  const std::vector<double> backward = reduce_backward();
  for (int32_t rank = 0; rank < layer.world_size; ++rank) {
    const Context context("rank %d of %d", rank, layer.world_size);
    Replica &replica = *replicas[static_cast<size_t>(rank)];
    check_backward_reduce(layer, rank, replica, true);
    replica.backward_input(backward);
    check_backward_input(layer, replica, backward);
    CHECK(replica.control->mismatch == 0, "control: mismatch is %u", replica.control->mismatch);
  }
}

void check_step(const Config &config) {
  std::string outers;
  for (const int64_t outer : config.outers) outers += (outers.empty() ? "" : "+") + std::to_string(outer);
  const Context context("%s [%s, %lld]%s%s%s%s misaligned %d offset %g epsilon %g decay %g", backend::kName,
                        outers.c_str(), static_cast<long long>(config.channels), config.gamma ? " gamma" : "",
                        config.beta ? " beta" : "", config.placement.y_over_x ? " y=x" : "",
                        config.placement.dx_over_dy ? " dx=dy" : "", config.placement.misaligned, config.offset,
                        config.epsilon, config.decay);
  Step(config).run();
}

}  // namespace test
