// syncbn_cpu_stats: per channel, the count, mean and sum of squared deviations (M2) of one replica's share.
//
// in   x     [outer, channels, inner] float32, float16, bfloat16 or float64, aligned to its elements
//      mask  uint8 with strides, or absent
// out  rows  float64 [world_size][forward row]: this rank's row, zeros in the others
//
// Algorithm: each lane walks its rows in blocks. A block sums d and d^2 in float32 (float64 for float64 tensors), where
//            d = x - shift, and the shift is the mean of the lane's first elements, then the lane's mean so far: so d
//            is about sigma however large the mean is. Blocks and lanes are merged in order in float64 (Chan). With a
//            mask the same, one element after the other and in float64. Deterministic: see lanes.h.
// Tasks:     one lane in one tile of channels; memory is read once, in order but for the far rows of sums.inc.
// Traffic:   reads x once (the first elements of a lane twice) and mask once; writes 24 bytes per lane and channel, and
//            rows.
// Range:     |x - mean| below 1e18, float64 1e150; beyond, squares overflow and M2 becomes inf. Right for any shape,
//            designed for 64 elements or more per channel.
#include "call.h"
#include "loops.h"
#include "merge.h"
#include "operations.h"
#include "sums.h"
#include "transform.h"
#include "whole.h"

namespace syncbn::cpu {
namespace {

constexpr int64_t kValues = 3;  // of a lane and a channel: count, mean, M2
static_assert(kValues <= kLaneValues);

// The elements of a channel whose mean is the shift of a lane's first block.
constexpr int64_t kSample = 8;

template <typename T>
class Summer {
 public:
  Summer(const Lanes &lanes, const T *x, Range channels)
      : lanes_(lanes), x_(x), channels_(channels), count_(static_cast<int>(channels.size())) {}

  // mean: a value close to the elements of the lane, that of the elements where they are all the same.
  void guess_mean(Range rows, double *mean) {
    const Layout &layout = lanes_.layout;
    const Range run = layout.run(rows.begin);
    for (int c = 0; c < count_; ++c) {
      const T *first = x_ + layout.index(layout.outer_of(rows.begin), channels_.begin + c, run.begin);
      shift_[c] = value(*first);
      mean[c] = static_cast<double>(shift_[c]);
      if (run.size() < kSample) continue;
      double sum = 0;
      for (int64_t i = 1; i < kSample; ++i) sum += static_cast<double>(value(first[i])) - mean[c];
      mean[c] += sum / kSample;
    }
    if (run.size() >= kSample) return;
    // Elements of a channel are far apart: rows are summed as they come.
    const int64_t sample_rows = divide_up(kSample, layout.inner) * lanes_.super_row;
    const Block sample = {{rows.begin, smaller(rows.begin + sample_rows, rows.end)}, 1, 0};
    add(sample);
    fold();
    for (int c = 0; c < count_; ++c) mean[c] += sum_[c] / elements(lanes_, sample);
  }

  // Merges a block's elements into mean and m2, those of `before` elements.
  void add_block(const Block &block, double before, double *mean, double *m2) {
    for (int c = 0; c < count_; ++c) shift_[c] = static_cast<Real<T>>(mean[c]);
    const double added = elements(lanes_, block);
    const Merge merge(before, added);
    const BlockWeights weights = {merge.mean_weight, merge.m2_weight, 1 / added};
    add(block);
    if (lanes_.columns(channels_) == count_) {
      loops_of<T>().merge_columns(sums_, squares_, count_, weights, mean, m2);
    } else {
      fold();
      loops_of<T>().merge_block(sum_, square_, count_, weights, mean, m2);
    }
  }

 private:
  // The sums of x - shift and of its square, of each column.
  void add(const Block &block) {
    spread_to_sums(lanes_, count_, shift_);
    const int64_t columns = lanes_.columns(channels_);
    for (int64_t i = 0; i < columns; ++i) sums_[i] = squares_[i] = 0;
    for_each_part(
        lanes_, block, channels_,
        [this](int64_t offset, const Runs &runs) {
          loops_of<T>().moments_of_runs(x_ + offset, runs, shift_, sums_, squares_);
        },
        [this](int64_t offset, const Rows &rows, int columns) {
          loops_of<T>().moments_of_columns(x_ + offset, rows, columns, shift_, sums_, squares_);
        });
  }

  // The same of each channel.
  void fold() {
    for (int c = 0; c < count_; ++c) sum_[c] = square_[c] = 0;
    add_columns<T>(lanes_, count_, sums_, sum_);
    add_columns<T>(lanes_, count_, squares_, square_);
  }

  const Lanes &lanes_;
  const T *const x_;
  const Range channels_;
  const int count_;
  alignas(64) Real<T> shift_[kTileColumns];
  alignas(64) Real<T> sums_[kTileColumns];
  alignas(64) Real<T> squares_[kTileColumns];
  double sum_[kTileColumns];
  double square_[kTileColumns];
};

// Moments of a lane in a tile of channels.
template <typename T>
void sum_lane(const Lanes &lanes, Range rows, Range channels, const T *x, const MomentsOf<double> &out) {
  Summer<T> summer(lanes, x, channels);
  summer.guess_mean(rows, out.mean);
  for (int64_t c = 0; c < channels.size(); ++c) {
    out.count[c] = static_cast<double>(lanes.layout.elements(rows));
    out.m2[c] = 0;
  }
  double before = 0;
  for_each_block(lanes, rows, channels, [&](const Block &block) {
    summer.add_block(block, before, out.mean, out.m2);
    before += elements(lanes, block);
  });
}

// The same of the elements that count.
template <typename T>
void sum_masked_lane(const Lanes &lanes, Range rows, Range channels, const T *x, const Mask &mask,
                     const MomentsOf<double> &out) {
  double count[kTileColumns];
  double shift[kTileColumns];
  double mean[kTileColumns];
  double m2[kTileColumns];
  for (int64_t c = 0; c < channels.size(); ++c) out.count[c] = out.mean[c] = out.m2[c] = 0;
  for (int64_t begin = rows.begin; begin < rows.end; begin += lanes.block_rows) {
    const Range block = {begin, smaller(begin + lanes.block_rows, rows.end)};
    for (int64_t c = 0; c < channels.size(); ++c) {
      shift[c] = out.mean[c];
      count[c] = mean[c] = m2[c] = 0;
    }
    for_each_element(lanes.layout, block, channels, [&](int64_t outer, int64_t channel, int64_t inner, int64_t index) {
      if (!mask.counts(outer, channel, inner)) return;
      const int64_t c = channel - channels.begin;
      const double element = static_cast<double>(value(x[index]));
      if (out.count[c] == 0 && count[c] == 0) shift[c] = element;
      const double d = element - shift[c];
      count[c] += 1;
      mean[c] += d;
      m2[c] += d * d;
    });
    for (int64_t c = 0; c < channels.size(); ++c) {
      if (count[c] == 0) continue;
      m2[c] -= mean[c] * (mean[c] / count[c]);
      mean[c] = shift[c] + mean[c] / count[c];
    }
    merge(out, {count, mean, m2}, channels.size(), channels.size());
  }
}

// What a lane left in the workspace, from this channel on.
MomentsOf<double> lane_moments(const syncbn_stats_args &args, int64_t lane, int64_t channel) {
  double *count = pointer<double>(args.workspace) + lane * kValues * args.channels + channel;
  return {count, count + args.channels, count + 2 * args.channels};
}

}  // namespace

Row row_of(const syncbn_stats_args &args) {
  const int64_t length = forward_row_length(args.channels, args.channel_counts != 0);
  double *row = pointer<double>(args.rows) + args.rank * length;
  return {row, row + kForwardRowHead, length, args.channel_counts ? 3 : 2};
}

void sum(const syncbn_stats_args &args, const Lanes &lanes, int64_t task) {
  const Range tile = lanes.channels(task);
  const MomentsOf<double> out = lane_moments(args, lanes.lane(task), tile.begin);
  with_element(args.dtype, [&](auto element) {
    using T = decltype(element);
    const T *x = pointer<const T>(args.x);
    if (args.mask) {
      sum_masked_lane(lanes, lanes.rows(task), tile, x, Mask(args), out);
    } else {
      sum_lane(lanes, lanes.rows(task), tile, x, out);
    }
  });
}

void write_sums(const syncbn_stats_args &args, const Lanes *lanes, Range channels) {
  const MomentsOf<double> all = lane_moments(args, 0, channels.begin);
  for (int64_t lane = 1; lanes && lane < lanes->lanes; ++lane) {
    const MomentsOf<double> other = lane_moments(args, lane, channels.begin);
    merge(all, {other.count, other.mean, other.m2}, args.mask ? channels.size() : 1, channels.size());
  }
  double *row = row_of(args).channels;
  for (int64_t i = 0; i < channels.size(); ++i) {
    const int64_t c = channels.begin + i;
    row[c] = lanes ? all.mean[i] : 0;
    row[args.channels + c] = lanes ? all.m2[i] : 0;
    if (args.channel_counts) row[2 * args.channels + c] = lanes ? all.count[args.mask ? i : 0] : 0;
  }
}

void write_head(const syncbn_stats_args &args) {
  double *head = row_of(args).head;
  head[0] = args.signature;
  const bool one_count = has_elements(args.outer, args.inner) && !args.channel_counts;
  head[1] = one_count ? lane_moments(args, 0, 0).count[0] : 0;
}

}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_stats(const syncbn_stats_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;
  reduce(*args);
  return SYNCBN_OK;
}
