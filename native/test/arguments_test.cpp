// Every argument that is outside its range is refused, by a text that names the value.
#include <stdlib.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <thread>

#include "step.h"

namespace test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

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

// What all four operations have.
template <typename Args>
std::vector<Wrong<Args>> wrong_shapes() {
  constexpr int64_t kHuge = int64_t{1} << 61;
  return {
      {"dtype -1", [](Args &a) { a.dtype = -1; }, SYNCBN_INVALID_ARGUMENT, "-1"},
      {"dtype 4", [](Args &a) { a.dtype = 4; }, SYNCBN_INVALID_ARGUMENT, "4"},
      {"float16", [](Args &a) { a.dtype = SYNCBN_FLOAT16; }, SYNCBN_UNSUPPORTED, "1"},
      {"float64", [](Args &a) { a.dtype = SYNCBN_FLOAT64; }, SYNCBN_UNSUPPORTED, "3"},
      {"outer", [](Args &a) { a.outer = -5; }, SYNCBN_INVALID_ARGUMENT, "-5"},
      {"channels 0", [](Args &a) { a.channels = 0; }, SYNCBN_INVALID_ARGUMENT, "channels is 0"},
      {"channels -7", [](Args &a) { a.channels = -7; }, SYNCBN_INVALID_ARGUMENT, "-7"},
      {"inner -2", [](Args &a) { a.inner = -2; }, SYNCBN_INVALID_ARGUMENT, "-2"},
      {"inner 49", [](Args &a) { a.inner = 49; }, SYNCBN_UNSUPPORTED, "49"},
      {"overflow", [](Args &a) { a.outer = kHuge; }, SYNCBN_INVALID_ARGUMENT, "2305843009213693952"},
      {"world_size", [](Args &a) { a.world_size = 0; }, SYNCBN_INVALID_ARGUMENT, "world_size is 0"},
      {"x misaligned", [](Args &a) { a.x += 2; }, SYNCBN_INVALID_ARGUMENT, "x is at 0x"},
      {"x null", [](Args &a) { a.x = 0; }, SYNCBN_INVALID_ARGUMENT, "x is null"},
      {"rows misaligned", [](Args &a) { a.rows += 4; }, SYNCBN_INVALID_ARGUMENT, "rows is at 0x"},
      {"signature", [](Args &a) { a.signature = kNan; }, SYNCBN_INVALID_ARGUMENT, "signature is NaN"},
      {"no signature", [](Args &a) { a.signature = 0; }, SYNCBN_INVALID_ARGUMENT, "signature is 0"},
  };
}

template <typename Args>
std::vector<Wrong<Args>> operator+(std::vector<Wrong<Args>> left, const std::vector<Wrong<Args>> &right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

// A replica on which every operation can run.
struct Ready {
  Step step;
  Replica &replica;

  Ready() : step(config()), replica(*step.replicas[0]) { step.run(); }

  static Config config() {
    Config config(6, {10});
    return config;
  }
};

}  // namespace

TEST(stats_refuses) {
  using Args = syncbn_stats_args;
  const Ready ready;
  check_refused("stats", backend::stats, ready.replica.stats_args(),
                wrong_shapes<Args>() +
                    std::vector<Wrong<Args>>{
                        {"rank -1", [](Args &a) { a.rank = -1; }, SYNCBN_INVALID_ARGUMENT, "-1"},
                        {"rank 1", [](Args &a) { a.rank = 1; }, SYNCBN_INVALID_ARGUMENT, "rank is 1"},
                        {"rows", [](Args &a) { a.rows = 0; }, SYNCBN_INVALID_ARGUMENT, "rows is null"},
                        {"workspace", [](Args &a) { a.workspace = 0; }, SYNCBN_INVALID_ARGUMENT, "workspace is null"},
                    });
}

TEST(normalize_refuses) {
  using Args = syncbn_normalize_args;
  const Ready ready;
  check_refused(
      "normalize", backend::normalize, ready.replica.normalize_args(),
      wrong_shapes<Args>() +
          std::vector<Wrong<Args>>{
              {"training", [](Args &a) { a.training = 2; }, SYNCBN_INVALID_ARGUMENT, "training is 2"},
              {"epsilon -1", [](Args &a) { a.epsilon = -1; }, SYNCBN_INVALID_ARGUMENT, "epsilon is -1"},
              {"epsilon NaN", [](Args &a) { a.epsilon = kNan; }, SYNCBN_INVALID_ARGUMENT, "nan"},
              {"decay", [](Args &a) { a.decay = kInfinity; }, SYNCBN_INVALID_ARGUMENT, "inf"},
              {"y null", [](Args &a) { a.y = 0; }, SYNCBN_INVALID_ARGUMENT, "y is null"},
              {"y", [](Args &a) { a.y += 1; }, SYNCBN_INVALID_ARGUMENT, "y is at 0x"},
              {"gamma", [](Args &a) { a.gamma += 2; }, SYNCBN_INVALID_ARGUMENT, "gamma is at 0x"},
              {"beta", [](Args &a) { a.beta += 2; }, SYNCBN_INVALID_ARGUMENT, "beta is at 0x"},
              {"rows", [](Args &a) { a.rows = 0; }, SYNCBN_INVALID_ARGUMENT, "rows is null"},
              {"moving_mean", [](Args &a) { a.moving_mean = 0; }, SYNCBN_INVALID_ARGUMENT, "moving_mean is null"},
              {"moving_variance", [](Args &a) { a.moving_variance += 3; }, SYNCBN_INVALID_ARGUMENT,
               "moving_variance is at 0x"},
              {"saved", [](Args &a) { a.saved += 4; }, SYNCBN_INVALID_ARGUMENT, "saved is at 0x"},
              {"control", [](Args &a) { a.control = 0; }, SYNCBN_INVALID_ARGUMENT, "control is null"},
              {"workspace", [](Args &a) { a.workspace = 0; }, SYNCBN_INVALID_ARGUMENT, "workspace is null"},
          });
}

TEST(backward_reduce_refuses) {
  using Args = syncbn_backward_reduce_args;
  const Ready ready;
  check_refused(
      "backward_reduce", backend::backward_reduce, ready.replica.backward_reduce_args(),
      wrong_shapes<Args>() +
          std::vector<Wrong<Args>>{
              {"rank", [](Args &a) { a.rank = 6; }, SYNCBN_INVALID_ARGUMENT, "rank is 6"},
              {"dy null", [](Args &a) { a.dy = 0; }, SYNCBN_INVALID_ARGUMENT, "dy is null"},
              {"dy", [](Args &a) { a.dy += 2; }, SYNCBN_INVALID_ARGUMENT, "dy is at 0x"},
              {"saved", [](Args &a) { a.saved = 0; }, SYNCBN_INVALID_ARGUMENT, "saved is null"},
              {"gamma_grad", [](Args &a) { a.gamma_grad += 1; }, SYNCBN_INVALID_ARGUMENT, "gamma_grad is at 0x"},
              {"beta_grad", [](Args &a) { a.beta_grad += 1; }, SYNCBN_INVALID_ARGUMENT, "beta_grad is at 0x"},
              {"workspace", [](Args &a) { a.workspace += 4; }, SYNCBN_INVALID_ARGUMENT, "workspace is at 0x"},
          });
}

TEST(backward_input_refuses) {
  using Args = syncbn_backward_input_args;
  const Ready ready;
  check_refused("backward_input", backend::backward_input, ready.replica.backward_input_args(),
                wrong_shapes<Args>() +
                    std::vector<Wrong<Args>>{
                        {"training", [](Args &a) { a.training = -3; }, SYNCBN_INVALID_ARGUMENT, "training is -3"},
                        {"dy", [](Args &a) { a.dy = 0; }, SYNCBN_INVALID_ARGUMENT, "dy is null"},
                        {"dx null", [](Args &a) { a.dx = 0; }, SYNCBN_INVALID_ARGUMENT, "dx is null"},
                        {"dx", [](Args &a) { a.dx += 2; }, SYNCBN_INVALID_ARGUMENT, "dx is at 0x"},
                        {"gamma", [](Args &a) { a.gamma += 2; }, SYNCBN_INVALID_ARGUMENT, "gamma is at 0x"},
                        {"saved", [](Args &a) { a.saved = 0; }, SYNCBN_INVALID_ARGUMENT, "saved is null"},
                        {"rows", [](Args &a) { a.rows = 0; }, SYNCBN_INVALID_ARGUMENT, "rows is null"},
                        {"control", [](Args &a) { a.control = 0; }, SYNCBN_INVALID_ARGUMENT, "control is null"},
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
