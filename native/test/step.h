// A whole training step of a layer with several replicas, every operation checked.
#ifndef SYNCBN_TEST_STEP_H
#define SYNCBN_TEST_STEP_H

#include <stdint.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "reference.h"
#include "replica.h"

namespace test {

// Repeatable on every platform; the standard library's distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  int below(int limit) { return static_cast<int>(bits() % static_cast<uint64_t>(limit)); }
  bool chance(int one_in) { return below(one_in) == 0; }
  double uniform() { return static_cast<double>(bits() >> 11) / 9007199254740992.0; }
  // Mean 0, variance 1, bounded by 3.5.
  double normal() { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508075688772; }
  template <typename T, size_t n>
  T one_of(const T (&values)[n]) {
    return values[below(n)];
  }

 private:
  uint64_t state_;
};

enum class Masked {
  kNothing,
  kRows,             // one byte for each o: the same count in all channels
  kChannels,         // one byte for each [o, c]
  kEverywhere,       // one byte for each element
  kSharedByChannels  // one byte for each [o, i]
};

struct Config {
  // extents: {outer, inner} of each rank.
  Config(int64_t channels, std::vector<std::array<int64_t, 2>> extents) : extents(std::move(extents)) {
    layer.channels = channels;
  }

  Layer layer;  // the state is made, gamma and beta unless they are given
  std::vector<std::array<int64_t, 2>> extents;
  bool gamma = true;
  bool beta = true;
  bool residual = false;
  bool adjustment = false;
  Masked masked = Masked::kNothing;
  double offset = 0.5;  // |mean| of each channel, in its standard deviations
  double scale = 1;     // standard deviation of the channels, to a factor of 4
  Placement placement;
  uint64_t seed = 1;
  // Changes the inputs once they are made. They are rounded to the dtype afterwards.
  std::function<void(std::vector<Input> &)> edit;

  std::string text() const;
};

struct Step {
  explicit Step(const Config &config);

  Layer layer;
  std::vector<std::unique_ptr<Replica>> replicas;

  // The operations of all replicas in turn, with checks after each. May be called again: the state goes on.
  void run();
  // Its halves. backward: after forward. A replica that is alone takes each again as one call, which must leave the
  // same bits.
  void forward();
  void backward();
  // The reductions alone, without checks; return the rows after the all-reduce.
  std::vector<double> reduce_forward();
  std::vector<double> reduce_backward();
  // Normalizes again with what forward() saved: nothing may change.
  void recompute();
  // Forward and backward with the moving statistics, with checks.
  void infer();
  // A direction of a replica that is alone, as one call.
  void forward_at_once();
  void backward_at_once();
  // What the inputs of all replicas say of the statistics.
  void check_whole_batch(const std::vector<Statistics> &statistics) const;
};

// A step that is built, run and destroyed.
void check_step(const Config &config);

// Whether all that two states hold are the same bits.
bool same_bits(const State &a, const State &b);

}  // namespace test

#endif
