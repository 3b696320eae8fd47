// How do two parts become one? Element count, mean and sum of squared deviations (M2) of both together (Chan).
#ifndef SYNCBN_CPU_MERGE_H
#define SYNCBN_CPU_MERGE_H

#include <stdint.h>

namespace syncbn::cpu {

// Of parts with these counts, not both 0. Written so that a constant channel keeps its mean, and that nothing is
// divided per channel where all have one count.
struct Merge {
  double mean_weight;  // of the difference of the means
  double m2_weight;    // of its square

  Merge(double count_a, double count_b)
      : mean_weight(count_b / (count_a + count_b)), m2_weight(count_a * (count_b / (count_a + count_b))) {}

  void operator()(double &mean, double &m2, double mean_b, double m2_b) const {
    const double delta = mean_b - mean;
    mean += delta * mean_weight;
    m2 += m2_b + delta * delta * m2_weight;
  }
};

// The moments of some channels.
template <typename Double>
struct MomentsOf {
  Double *count;  // one for all channels, or one per channel
  Double *mean;
  Double *m2;
};

// Merges b into a. counts: how many counts each has, 1 or `channels`. A part without elements changes nothing, whatever
// else it holds.
inline void merge(const MomentsOf<double> &a, const MomentsOf<const double> &b, int64_t counts, int64_t channels) {
  for (int64_t i = 0; i < counts; ++i) {
    if (b.count[i] == 0) continue;
    const int64_t begin = i;
    const int64_t end = counts == 1 ? channels : i + 1;
    if (a.count[i] == 0) {
      for (int64_t c = begin; c < end; ++c) a.mean[c] = b.mean[c];
      for (int64_t c = begin; c < end; ++c) a.m2[c] = b.m2[c];
    } else {
      const Merge merge(a.count[i], b.count[i]);
      for (int64_t c = begin; c < end; ++c) merge(a.mean[c], a.m2[c], b.mean[c], b.m2[c]);
    }
    a.count[i] += b.count[i];
  }
}

}  // namespace syncbn::cpu

#endif
