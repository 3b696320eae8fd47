// Every argument that is outside its range is refused, by a text that names the value.
#include <stdlib.h>

#include <functional>
#include <string>
#include <thread>

#include "backend.h"
#include "check.h"
#include "step.h"

namespace test {
namespace {

template <typename Args>
struct Wrong {
  const char *what;
  std::function<void(Args &)> change;
  int status;
  const char *text;
};

template <typename Args>
void check_refused(const char *operation, int32_t (*call)(const Args *), const Args &good,
                   const std::vector<Wrong<Args>> &cases) {
  const Context context("%s %s", backend::kName, operation);
  for (const Wrong<Args> &c : cases) {
    Args args = good;
    c.change(args);
    const int status = call(&args);
    const std::string text = backend::last_error();
    CHECK(status == c.status, "%s: status %d, want %d (%s)", c.what, status, c.status, text.c_str());
    CHECK(text.find(c.text) != std::string::npos, "%s: \"%s\" does not contain \"%s\"", c.what, text.c_str(), c.text);
  }
  CHECK(call(nullptr) == SYNCBN_INVALID_ARGUMENT, "null arguments were taken");
  // Only the size of an older caller's struct can be read.
  uint32_t *short_struct = static_cast<uint32_t *>(malloc(sizeof(uint32_t)));
  *short_struct = sizeof(Args) - 8;
  CHECK(call(reinterpret_cast<const Args *>(short_struct)) == SYNCBN_INVALID_ARGUMENT, "a short struct was taken");
  CHECK(std::string(backend::last_error()).find(std::to_string(sizeof(Args) - 8)) != std::string::npos, "\"%s\"",
        backend::last_error());
  free(short_struct);
  CHECK(call(&good) == SYNCBN_OK, "the unchanged arguments: %s", backend::last_error());
  CHECK(backend::last_error()[0] == '\0', "after success the text is \"%s\"", backend::last_error());
}

template <typename Args>
std::vector<Wrong<Args>> operator+(std::vector<Wrong<Args>> left, const std::vector<Wrong<Args>> &right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

// `field = value` is refused by a text that has `text`.
#define WRONG(field, value, text)                                                         \
  {                                                                                       \
#field " = " #value, [](Args & a) { a.field = value; }, SYNCBN_INVALID_ARGUMENT, text \
  }
// An address that must be there, and one that is not a multiple of the element.
#define NEEDED(field)                                                                           \
  {                                                                                             \
#field " absent", [](Args & a) { a.field = 0; }, SYNCBN_INVALID_ARGUMENT, #field " is null" \
  }
#define ALIGNED(field)                                                                                \
  {                                                                                                   \
#field " misaligned", [](Args & a) { a.field += 1; }, SYNCBN_INVALID_ARGUMENT, #field " is at 0x" \
  }

// What all four operations have.
template <typename Args>
std::vector<Wrong<Args>> wrong_shapes() {
  constexpr int64_t kHuge = int64_t{1} << 61;
  return {
      WRONG(dtype, -1, "dtype is -1"),
      WRONG(dtype, 4, "dtype is 4"),
      WRONG(outer, -5, "outer is -5"),
      WRONG(channels, 0, "channels is 0"),
      WRONG(channels, -7, "channels is -7"),
      WRONG(inner, -2, "inner is -2"),
      WRONG(outer, kHuge, "2305843009213693952"),
      WRONG(inner, kHuge, "2305843009213693952"),
      WRONG(world_size, 0, "world_size is 0"),
      NEEDED(x),
      ALIGNED(x),
      ALIGNED(rows),
      WRONG(signature, kNan, "signature is NaN"),
      WRONG(signature, 0, "signature is 0"),
  };
}

// What those that compute v have.
template <typename Args>
std::vector<Wrong<Args>> wrong_values() {
  return {
      WRONG(relu, 2, "relu is 2"),
      ALIGNED(gamma),
      ALIGNED(beta),
      ALIGNED(adjust_scale),
      ALIGNED(adjust_bias),
      {"adjust_scale alone", [](Args &a) { a.adjust_bias = 0; }, SYNCBN_INVALID_ARGUMENT, "adjust_bias is null"},
      {"adjust_bias alone", [](Args &a) { a.adjust_scale = 0; }, SYNCBN_INVALID_ARGUMENT, "adjust_scale is null"},
  };
}

// What those with a mask have.
template <typename Args>
std::vector<Wrong<Args>> wrong_masks() {
  return {WRONG(mask_outer_stride, -4, "-4"), WRONG(mask_channel_stride, -5, "-5"), WRONG(mask_inner_stride, -6, "-6")};
}

// A replica on which every operation can run, with all that is optional. Its tensors are float64.
struct Ready {
  Step step;
  Replica &replica;

  Ready() : step(config()), replica(*step.replicas[0]) { step.run(); }

  static Config config() {
    Config config(6, {{10, 3}});
    config.layer.dtype = SYNCBN_FLOAT64;
    config.layer.renorm = config.layer.cumulative = config.layer.relu = config.layer.relu_again = true;
    config.layer.channel_counts = true;
    config.adjustment = true;
    config.masked = Masked::kEverywhere;
    return config;
  }
};

}  // namespace

TEST(stats_refuses) {
  using Args = syncbn_stats_args;
  const Ready ready;
  check_refused("stats", backend::stats, ready.replica.stats_args(),
                wrong_shapes<Args>() + wrong_masks<Args>() +
                    std::vector<Wrong<Args>>{
                        WRONG(rank, -1, "rank is -1"),
                        WRONG(rank, 1, "rank is 1"),
                        WRONG(channel_counts, 3, "channel_counts is 3"),
                        NEEDED(rows),
                        NEEDED(workspace),
                        ALIGNED(workspace),
                    });
}

TEST(normalize_refuses) {
  using Args = syncbn_normalize_args;
  const Ready ready;
  check_refused("normalize", backend::normalize, ready.replica.normalize_args(),
                wrong_shapes<Args>() + wrong_values<Args>() +
                    std::vector<Wrong<Args>>{
                        WRONG(statistics, 3, "statistics is 3"),
                        WRONG(statistics, -1, "statistics is -1"),
                        WRONG(channel_counts, 5, "channel_counts is 5"),
                        WRONG(renorm, -1, "renorm is -1"),
                        WRONG(unbiased, 2, "unbiased is 2"),
                        WRONG(cumulative, 7, "cumulative is 7"),
                        WRONG(epsilon, -1, "epsilon is -1"),
                        WRONG(epsilon, kNan, "nan"),
                        WRONG(decay, kInfinity, "decay is inf"),
                        WRONG(renorm_decay, kNan, "renorm_decay is nan"),
                        WRONG(r_min, kNan, "r_min is NaN"),
                        WRONG(r_max, kNan, "r_max is NaN"),
                        WRONG(d_max, kNan, "d_max is NaN"),
                        NEEDED(y),
                        ALIGNED(y),
                        ALIGNED(residual),
                        NEEDED(rows),
                        NEEDED(moving_mean),
                        ALIGNED(moving_mean),
                        NEEDED(moving_variance),
                        ALIGNED(moving_variance),
                        NEEDED(moving_stddev),
                        ALIGNED(moving_stddev),
                        NEEDED(renorm_mean),
                        ALIGNED(renorm_mean),
                        NEEDED(renorm_stddev),
                        ALIGNED(renorm_stddev),
                        ALIGNED(saved),
                        NEEDED(control),
                        ALIGNED(control),
                        NEEDED(workspace),
                        ALIGNED(workspace),
                        NEEDED(updates),
                        ALIGNED(updates),
                    });
  check_refused("normalize with moving statistics", backend::normalize, ready.replica.inference_args(),
                std::vector<Wrong<Args>>{NEEDED(moving_mean), NEEDED(moving_variance)});
  check_refused("normalize with saved statistics", backend::normalize, ready.replica.recompute_args(),
                std::vector<Wrong<Args>>{NEEDED(saved)});
}

TEST(backward_reduce_refuses) {
  using Args = syncbn_backward_reduce_args;
  const Ready ready;
  check_refused("backward_reduce", backend::backward_reduce, ready.replica.backward_reduce_args(),
                wrong_shapes<Args>() + wrong_values<Args>() + wrong_masks<Args>() +
                    std::vector<Wrong<Args>>{
                        WRONG(rank, 6, "rank is 6"),
                        NEEDED(dy),
                        ALIGNED(dy),
                        ALIGNED(dresidual),
                        NEEDED(saved),
                        ALIGNED(saved),
                        ALIGNED(gamma_grad),
                        ALIGNED(beta_grad),
                        NEEDED(workspace),
                        ALIGNED(workspace),
                    });
}

TEST(backward_input_refuses) {
  using Args = syncbn_backward_input_args;
  const Ready ready;
  check_refused("backward_input", backend::backward_input, ready.replica.backward_input_args(),
                wrong_shapes<Args>() + wrong_values<Args>() + wrong_masks<Args>() +
                    std::vector<Wrong<Args>>{
                        WRONG(training, -3, "training is -3"),
                        NEEDED(dy),
                        ALIGNED(dy),
                        NEEDED(dx),
                        ALIGNED(dx),
                        NEEDED(saved),
                        ALIGNED(saved),
                        NEEDED(rows),
                        NEEDED(control),
                        ALIGNED(control),
                    });
}

TEST(copy_refuses) {
  using Args = syncbn_copy_args;
  Buffer source("source", 48);
  Buffer destination("destination", 48);
  Args good = {};
  good.struct_size = sizeof good;
  good.element_size = 8;
  good.rank = 2;
  good.shape[0] = 2;
  good.shape[1] = 3;
  good.source_strides[0] = good.destination_strides[0] = 3;
  good.source_strides[1] = good.destination_strides[1] = 1;
  good.source = source.address();
  good.destination = destination.address();
  good.stream = backend::stream();
  check_refused("copy", backend::copy, good,
                std::vector<Wrong<Args>>{
                    WRONG(element_size, 3, "element_size is 3"),
                    WRONG(element_size, 16, "element_size is 16"),
                    WRONG(element_size, 0, "element_size is 0"),
                    WRONG(rank, -1, "rank is -1"),
                    WRONG(rank, 17, "rank is 17"),
                    WRONG(shape[1], -3, "shape[1] is -3"),
                    WRONG(source_strides[0], -2, "source_strides[0] is -2"),
                    WRONG(destination_strides[1], -9, "destination_strides[1] is -9"),
                    WRONG(shape[0], int64_t{1} << 60, "2^63"),
                    NEEDED(source),
                    ALIGNED(source),
                    NEEDED(destination),
                    ALIGNED(destination),
                });
}

TEST(library_says_what_it_is) {
  CHECK(backend::abi_version() == SYNCBN_ABI_VERSION, "abi_version is %d", backend::abi_version());
  CHECK(std::string(backend::build_info()).find(backend::kName) != std::string::npos, "\"%s\"", backend::build_info());
  CHECK(std::string(backend::build_info()).find('\n') == std::string::npos, "more than one line");
}

TEST(workspace_bytes_refuses) {
  for (const int64_t channels : {int64_t{0}, int64_t{-3}}) {
    CHECK(backend::workspace_bytes(channels) == 0, "workspace of %lld channels", static_cast<long long>(channels));
    CHECK(std::string(backend::last_error()).find(std::to_string(channels)) != std::string::npos, "\"%s\"",
          backend::last_error());
  }
  CHECK(backend::workspace_bytes(1) > 0, "no workspace for a channel");
  CHECK(backend::workspace_bytes(2000000000) > 0, "no workspace for 2e9 channels");
}

TEST(errors_belong_to_their_thread) {
  CHECK(backend::stats(nullptr) != SYNCBN_OK, "null arguments were taken");
  const std::string mine = backend::last_error();
  std::string theirs = "not read";
  std::thread([&] {
    theirs = backend::last_error();
    backend::workspace_bytes(-9);
  }).join();
  CHECK(theirs.empty(), "a thread without calls has the text \"%s\"", theirs.c_str());
  CHECK(mine == backend::last_error() && !mine.empty(), "\"%s\" became \"%s\"", mine.c_str(), backend::last_error());
}

}  // namespace test
