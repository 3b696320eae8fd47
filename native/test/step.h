// A whole training step of a layer with several replicas, every operation checked.
#ifndef SYNCBN_TEST_STEP_H
#define SYNCBN_TEST_STEP_H

#include <stdint.h>

#include <functional>
#include <memory>
#include <utility>
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
  double uniform() { return static_cast<double>(bits() >> 11) / 9007199254740992.0; }
  // Mean 0, variance 1, bounded by 3.
  double normal() { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7320508075688772; }

 private:
  uint64_t state_;
};

struct Config {
  Config(int64_t channels, std::vector<int64_t> outers) : channels(channels), outers(std::move(outers)) {}

  int64_t channels;
  std::vector<int64_t> outers;  // one per rank
  bool gamma = true;
  bool beta = true;
  double epsilon = 1e-3;
  double decay = 0.1;
  double offset = 0.5;  // |mean| of each channel, in its standard deviations
  double scale = 1;     // standard deviation of the channels, to a factor of 4
  Placement placement;
  uint64_t seed = 1;
  // Changes the inputs once they are made.
  std::function<void(std::vector<Input> &)> edit;
};

struct Step {
  explicit Step(const Config &config);

  Layer layer;
  std::vector<std::unique_ptr<Replica>> replicas;

  // The operations of all replicas in turn, with checks after each.
  void run();
  // The halves, without checks, that return the rows after the all-reduce.
  std::vector<double> reduce_forward();
  std::vector<double> reduce_backward();
  // What forward rows say of each channel.
  std::vector<Statistics> merged(const std::vector<double> &rows) const;
  // What the inputs of all replicas say.
  void check_whole_batch(const std::vector<Statistics> &statistics) const;
};

// A step that is built, run and destroyed.
void check_step(const Config &config);

}  // namespace test

#endif
