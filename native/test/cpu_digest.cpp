#include "cpu_digest.h"

#include <vector>

#include "check.h"
#include "step.h"

namespace test {
namespace {

template <typename T>
syncbn_address address(std::vector<T> &values) {
  return reinterpret_cast<syncbn_address>(values.data());
}

template <typename T>
void add(uint64_t &hash, const std::vector<T> &values) {
  const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
}

void expect_ok(int32_t status) { CHECK(status == SYNCBN_OK, "status %d: %s", status, syncbn_cpu_last_error()); }

}  // namespace

uint64_t digest(syncbn_address pool, int64_t outer, int64_t channels) {
  const size_t elements = static_cast<size_t>(outer * channels);
  const size_t width = static_cast<size_t>(channels);
  // Made by a plain recurrence: the digest must not depend on how this file is compiled.
  Random random(static_cast<uint64_t>(outer * 4096 + channels));
  std::vector<float> x(elements), dy(elements), y(elements), dx(elements);
  for (size_t i = 0; i < elements; ++i) {
    const uint64_t bits = random.bits();
    x[i] = static_cast<float>(bits & 0xfffff) * 0x1p-18f + 3.0f;
    dy[i] = static_cast<float>(bits >> 44) * 0x1p-19f - 1.0f;
  }
  std::vector<float> gamma(width, 1.25f), beta(width, -0.5f), moving_mean(width, 0.5f), moving_variance(width, 2.0f);
  std::vector<float> gamma_grad(width), beta_grad(width);
  std::vector<double> forward(2 + 2 * width), backward(1 + 2 * width), saved(1 + 2 * width);
  std::vector<double> workspace(static_cast<size_t>(syncbn_cpu_workspace_bytes(channels)) / sizeof(double));
  syncbn_control control = {};
  const auto control_address = reinterpret_cast<syncbn_address>(&control);

  const syncbn_stats_args stats = {sizeof stats,     SYNCBN_FLOAT32,     outer, channels, 1, 1, 0, 1.0, address(x),
                                   address(forward), address(workspace), pool};
  expect_ok(syncbn_cpu_stats(&stats));
  const syncbn_normalize_args normalize = {sizeof normalize,
                                           SYNCBN_FLOAT32,
                                           outer,
                                           channels,
                                           1,
                                           1,
                                           1,
                                           1.0,
                                           1e-3,
                                           0.1,
                                           address(x),
                                           address(y),
                                           address(gamma),
                                           address(beta),
                                           address(forward),
                                           address(moving_mean),
                                           address(moving_variance),
                                           address(saved),
                                           control_address,
                                           address(workspace),
                                           pool};
  expect_ok(syncbn_cpu_normalize(&normalize));
  const syncbn_backward_reduce_args reduce = {sizeof reduce,
                                              SYNCBN_FLOAT32,
                                              outer,
                                              channels,
                                              1,
                                              1,
                                              0,
                                              1.0,
                                              address(x),
                                              address(dy),
                                              address(saved),
                                              address(backward),
                                              address(gamma_grad),
                                              address(beta_grad),
                                              address(workspace),
                                              pool};
  expect_ok(syncbn_cpu_backward_reduce(&reduce));
  const syncbn_backward_input_args input = {sizeof input,
                                            SYNCBN_FLOAT32,
                                            outer,
                                            channels,
                                            1,
                                            1,
                                            1,
                                            1.0,
                                            address(x),
                                            address(dy),
                                            address(dx),
                                            address(gamma),
                                            address(saved),
                                            address(backward),
                                            control_address,
                                            pool};
  expect_ok(syncbn_cpu_backward_input(&input));

  uint64_t hash = 14695981039346656037u;
  for (const auto *values : {&y, &dx, &gamma_grad, &beta_grad, &moving_mean, &moving_variance}) add(hash, *values);
  for (const auto *values : {&forward, &backward, &saved}) add(hash, *values);
  return hash;
}

uint64_t digest(syncbn_address pool) {
  constexpr int64_t kShapes[][2] = {{5, 3},      {20000, 1},  {7001, 3},  {3000, 7},  {2000, 64},
                                    {999, 100},  {1200, 128}, {700, 129}, {900, 256}, {300, 257},
                                    {400, 1000}, {140, 2048}, {130, 2500}};
  uint64_t hash = 0;
  for (const auto &shape : kShapes) hash = hash * 31 + digest(pool, shape[0], shape[1]);
  return hash;
}

}  // namespace test
