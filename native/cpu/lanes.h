// Which rows are summed together? The fixed tree of additions that makes a result depend on its shape alone.
//
// A tensor [outer, channels] is cut into lanes, runs of rows that are summed up on their own and merged in order. A
// lane is cut into blocks, which are summed in float32 relative to a shift close to the mean and then added to the
// lane's float64 sums. Neither depends on the number of threads or on the instruction set.
#ifndef SYNCBN_CPU_LANES_H
#define SYNCBN_CPU_LANES_H

#include <stdint.h>

namespace syncbn::cpu {

// Columns that a task works on at once: what its sums and tables take of the thread's stack and first-level cache.
constexpr int kTileColumns = 2048;
// Rows summed in float32. At most 24 additions follow one another within it (loops.inc), which bounds the relative
// error of a sum of squares by 2^-19; it is ten times smaller as a rule.
constexpr int kBlockRows = 128;
// Float64 values per channel that a lane leaves in the workspace.
constexpr int64_t kLaneValues = 2;

constexpr int64_t kMaxLanes = 64;
// Fewer rows or elements are not worth the merge of another lane.
constexpr int64_t kMinLaneRows = 128;
constexpr int64_t kMinLaneElements = 8192;
// Lanes times channels, so that the workspace of many channels stays small: these are parallel by tiles of columns.
constexpr int64_t kMaxLaneChannels = 32768;

// Floats in the widest vector.
constexpr int kMaxVector = 16;

constexpr int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

constexpr int64_t max_lanes(int64_t channels) { return clamp(kMaxLaneChannels / channels, 1, kMaxLanes); }

constexpr int64_t workspace_bytes(int64_t channels) {
  return max_lanes(channels) * kLaneValues * channels * static_cast<int64_t>(sizeof(double));
}

// Rows that are treated as one: so few channels fill whole vectors, and groups of them that the loops keep in
// registers.
constexpr int rows_per_super_row(int64_t channels) {
  constexpr int64_t kGroup = 64;
  constexpr int64_t kMaxColumns = 1024;
  int64_t rows = 1;
  while (rows * channels % kGroup != 0) rows *= 2;
  // Where that is too wide, whole vectors at least.
  while (rows * channels > kMaxColumns && rows > 1 && rows * channels % (2 * kMaxVector) == 0) rows /= 2;
  return rows * channels <= kMaxColumns ? static_cast<int>(rows) : 1;
}

struct Range {
  int64_t begin;
  int64_t end;
};

// Part `index` of `parts` of [0, length), cut at multiples of `unit`. The last part takes what is left over.
constexpr Range part(int64_t length, int64_t unit, int64_t parts, int64_t index) {
  const int64_t units = length / unit;
  const int64_t each = units / parts;
  const int64_t more = units % parts;
  const int64_t begin = (index * each + (index < more ? index : more)) * unit;
  const int64_t next = index + 1;
  const int64_t end = next == parts ? length : (next * each + (next < more ? next : more)) * unit;
  return {begin, end};
}

// How one [outer, channels] tensor is cut. A task is one lane in one tile of columns.
struct Lanes {
  int64_t outer;
  int64_t channels;
  int super_row;  // in rows
  int64_t lanes;  // >= 1
  int64_t tiles;

  constexpr Lanes(int64_t outer, int64_t channels)
      : outer(outer),
        channels(channels),
        super_row(rows_per_super_row(channels)),
        lanes(clamp(outer / kMinLaneRows < outer * channels / kMinLaneElements ? outer / kMinLaneRows
                                                                               : outer * channels / kMinLaneElements,
                    1, max_lanes(channels))),
        tiles((channels + kTileColumns - 1) / kTileColumns) {}

  constexpr int64_t tasks() const { return lanes * tiles; }
  constexpr int64_t lane(int64_t task) const { return task / tiles; }
  constexpr Range rows(int64_t task) const { return part(outer, super_row, lanes, lane(task)); }
  constexpr Range columns(int64_t task) const {
    const int64_t begin = task % tiles * kTileColumns;
    return {begin, begin + kTileColumns < channels ? begin + kTileColumns : channels};
  }
};

// Element count, mean and sum of squared deviations of some channels: those of `a` and of `b` together (Chan). Written
// so that a constant channel keeps its mean, and that nothing is divided per channel.
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

}  // namespace syncbn::cpu

#endif
