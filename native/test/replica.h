// One replica of a layer on the device under test: its tensors, and the operations on them.
#ifndef SYNCBN_TEST_REPLICA_H
#define SYNCBN_TEST_REPLICA_H

#include <array>
#include <limits>
#include <vector>

#include "buffer.h"
#include "syncbn.h"

namespace test {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// What the steps of a layer change, per channel; the last three with renorm alone.
enum { kMovingMean, kMovingVariance, kMovingStddev, kRenormMean, kRenormStddev, kStates };
extern const char *const kStateNames[kStates];

struct State {
  std::array<std::vector<double>, kStates> values;
  int64_t updates = 0;
};

// What the replicas of a layer have in common.
struct Layer {
  int32_t dtype = SYNCBN_FLOAT32;
  int64_t channels = 1;
  int32_t world_size = 1;
  double signature = 3;
  double epsilon = 1e-3;
  double decay = 0.1;
  std::vector<double> gamma;  // empty: absent
  std::vector<double> beta;   // empty: absent
  State state;                // at first
  bool channel_counts = false;
  bool relu = false;
  bool relu_again = false;  // backward computes v again instead of reading relu_mask
  bool unbiased = false;
  bool cumulative = false;
  bool renorm = false;
  double renorm_decay = 0.2;
  double r_min = -kInfinity;
  double r_max = kInfinity;
  double d_max = kInfinity;

  int64_t forward_row() const { return 2 + (channel_counts ? 3 : 2) * channels; }
  int64_t backward_row() const { return 1 + 2 * channels; }
};

enum class Over { kNothing, kX, kResidual };

struct Placement {
  Over y = Over::kNothing;
  bool dresidual_over_dy = false;
  bool dx_over_dy = false;
  int64_t misaligned = 0;  // in elements, of everything
};

// A mask byte for each [o, c, i], found by the strides; no bytes: every element counts.
struct Mask {
  Bytes bytes;
  int64_t outer = 0;
  int64_t channel = 0;
  int64_t inner = 0;
};

// The tensors of a replica, all [outer, channels, inner].
struct Input {
  int64_t outer = 0;
  int64_t inner = 1;
  std::vector<double> x, dy;
  std::vector<double> residual;                   // empty: none
  std::vector<double> adjust_scale, adjust_bias;  // empty: none
  Mask mask;

  int64_t index(int64_t channels, int64_t o, int64_t c, int64_t i) const { return (o * channels + c) * inner + i; }
  bool counts(int64_t o, int64_t c, int64_t i) const {
    return mask.bytes.empty() || mask.bytes[static_cast<size_t>(o * mask.outer + c * mask.channel + i * mask.inner)];
  }
};

class Replica {
 public:
  Replica(const Layer &layer, int32_t rank, const Input &input, const Placement &placement = {});
  ~Replica();
  Replica(const Replica &) = delete;
  Replica &operator=(const Replica &) = delete;

  // Each enqueues one operation and expects SYNCBN_OK. rows is uploaded first.
  void stats();
  void normalize(const std::vector<double> &rows);
  void infer();
  void recompute();
  void backward_reduce();
  void backward_input(const std::vector<double> &rows);
  // After infer().
  void backward_reduce_without_rows();
  void backward_input_of_inference();

  // The arguments of these calls, for tests that change something.
  syncbn_stats_args stats_args() const;
  syncbn_normalize_args normalize_args() const;
  syncbn_normalize_args inference_args() const;
  syncbn_normalize_args recompute_args() const;
  syncbn_backward_reduce_args backward_reduce_args() const;
  syncbn_backward_input_args backward_input_args() const;

  const Input &input() const { return input_; }
  State state() const;
  void set_state(const State &state);
  const Tensor &y() const;
  const Tensor &dx() const { return placement_.dx_over_dy ? dy_ : dx_; }
  const Tensor &dresidual() const { return placement_.dresidual_over_dy ? dy_ : dresidual_; }
  // What operations have overwritten.
  void restore_inputs();

 private:
  template <typename Args>
  void set_mask(Args &args) const;
  template <typename Args>
  void set_factors(Args &args) const;  // gamma, beta and the adjustment

  const Layer layer_;
  const int32_t rank_;
  const Input input_;
  const Placement placement_;
  Tensor x_, y_, residual_, dy_, dx_, dresidual_;
  Tensor adjust_scale_, adjust_bias_;
  Tensor gamma_, beta_;
  Buffer mask_;
  std::array<Tensor, kStates> state_;
  Buffer updates_;

 public:
  Buffer relu_mask;
  Tensor gamma_grad, beta_grad;
  Tensor forward_rows, backward_rows, saved;
  Buffer workspace;
  syncbn_control *const control;
  syncbn_address stream;  // of every call; at first the backend's
};

// What the all-reduce leaves everywhere: the sum of all replicas' rows.
std::vector<double> all_reduce(const std::vector<std::vector<double>> &rows);

}  // namespace test

#endif
