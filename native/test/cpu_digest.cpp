#include "cpu_digest.h"

#include <math.h>

#include "dtype.h"

namespace test {
namespace {

void add(uint64_t &hash, const Bytes &bytes) {
  for (const unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u;
}

Config config_of(const std::array<int64_t, 3> &shape, int32_t dtype, bool options) {
  Config config(shape[1], {{shape[0], shape[2]}});
  config.layer.dtype = dtype;
  config.layer.relu = config.layer.renorm = config.layer.channel_counts = options;
  config.residual = options;
  config.masked = options ? Masked::kSharedByChannels : Masked::kNothing;
  return config;
}

}  // namespace

Work::Work(const std::vector<std::array<int64_t, 3>> &shapes) {
  for (const auto &shape : shapes) steps_.push_back(std::make_unique<Step>(config_of(shape, SYNCBN_FLOAT32, false)));
}

Work::Work()
    : Work({{5, 3, 1},
            {20000, 1, 1},
            {3000, 7, 1},
            {2000, 64, 1},
            {999, 100, 1},
            {700, 129, 1},
            {300, 257, 1},
            {400, 1000, 1},
            {130, 2500, 1}}) {
  bool options = false;
  for (const int32_t dtype : kDtypes) {
    for (const auto &shape :
         {std::array<int64_t, 3>{2000, 5, 1}, {3, 7, 2000}, {9, 300, 4}, {30, 64, 49}, {2, 9, 49}}) {
      steps_.push_back(std::make_unique<Step>(config_of(shape, dtype, options)));
      options = !options;
    }
    // A ReLU that backward computes again, and one behind a residual: of all elements.
    for (const auto &shape : {std::array<int64_t, 3>{300, 5, 1}, {3, 64, 49}}) {
      Config config = config_of(shape, dtype, false);
      config.layer.relu = config.layer.relu_again = true;
      steps_.push_back(std::make_unique<Step>(config));
      config.layer.relu_again = false;
      config.residual = true;
      steps_.push_back(std::make_unique<Step>(config));
    }
  }
  // What the instruction that stores bfloat16 does not do: a NaN, and gradients that are denormal.
  Config config = config_of({30, 64, 49}, SYNCBN_BFLOAT16, false);
  config.edit = [](std::vector<Input> &inputs) {
    for (Input &input : inputs) {
      for (double &gradient : input.dy) gradient *= 1e-38;
      input.x[0] = NAN;
    }
  };
  steps_.push_back(std::make_unique<Step>(config));
  // Of infinite elements come NaNs that processors sign, and others that the library makes.
  Config infinite = config_of({5, 7, 1023}, SYNCBN_FLOAT16, false);
  infinite.edit = [](std::vector<Input> &inputs) {
    for (size_t i = 0; i < inputs[0].x.size(); i += 1500) inputs[0].x[i] = i % 2000 == 0 ? -INFINITY : INFINITY;
  };
  steps_.push_back(std::make_unique<Step>(infinite));
}

uint64_t Work::digest(syncbn_address pool) {
  uint64_t hash = 14695981039346656037u;
  for (const auto &step : steps_) {
    Replica &replica = *step->replicas[0];
    replica.stream = pool;
    replica.set_state(step->layer.state);
    replica.stats();
    replica.normalize(replica.forward_rows.download());
    replica.backward_reduce();
    replica.backward_input(replica.backward_rows.download());
    const Tensor *const outputs[] = {&replica.y(),           &replica.dresidual(), &replica.dx(),
                                     &replica.gamma_grad,    &replica.beta_grad,   &replica.forward_rows,
                                     &replica.backward_rows, &replica.saved};
    for (const Tensor *tensor : outputs) add(hash, tensor->download_bytes());
    add(hash, replica.relu_mask.download_bytes());
    for (const auto &values : replica.state().values) add(hash, encode(SYNCBN_FLOAT64, values));
  }
  return hash;
}

}  // namespace test
