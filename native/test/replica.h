// One replica of a layer on the device under test: its tensors, and the four operations on them.
#ifndef SYNCBN_TEST_REPLICA_H
#define SYNCBN_TEST_REPLICA_H

#include <vector>

#include "buffer.h"
#include "syncbn.h"

namespace test {

// What the replicas of a layer have in common.
struct Layer {
  int64_t channels;
  int32_t world_size = 1;
  double signature = 3;
  double epsilon = 1e-3;
  double decay = 0.1;
  std::vector<float> gamma;  // empty: absent
  std::vector<float> beta;   // empty: absent
  std::vector<float> moving_mean;
  std::vector<float> moving_variance;

  int64_t forward_row() const { return 2 + 2 * channels; }
  int64_t backward_row() const { return 1 + 2 * channels; }
};

struct Placement {
  bool y_over_x = false;
  bool dx_over_dy = false;
  int misaligned = 0;  // in elements, of the tensors
};

struct Input {
  std::vector<float> x;
  std::vector<float> dy;
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
  void backward_reduce();
  void backward_input(const std::vector<double> &rows);
  // After infer().
  void backward_reduce_without_rows();
  void backward_input_of_inference();

  // The arguments of these calls, for tests that change something.
  syncbn_stats_args stats_args() const;
  syncbn_normalize_args normalize_args() const;
  syncbn_backward_reduce_args backward_reduce_args() const;
  syncbn_backward_input_args backward_input_args() const;

  const Input &input() const { return input_; }
  int64_t outer() const { return static_cast<int64_t>(input_.x.size()) / layer_.channels; }
  std::vector<float> y() const { return placement_.y_over_x ? x_.download() : y_.download(); }
  std::vector<float> dx() const { return placement_.dx_over_dy ? dy_.download() : dx_.download(); }

 private:
  const Layer layer_;
  const int32_t rank_;
  const Input input_;
  const Placement placement_;
  Buffer<float> x_, y_, dy_, dx_;
  Buffer<float> gamma_, beta_;

 public:
  Buffer<float> moving_mean, moving_variance, gamma_grad, beta_grad;
  Buffer<double> forward_rows, backward_rows, saved;
  Buffer<char> workspace;
  syncbn_control *const control;
};

// What the all-reduce leaves everywhere: the sum of all replicas' rows.
std::vector<double> all_reduce(const std::vector<std::vector<double>> &rows);

}  // namespace test

#endif
