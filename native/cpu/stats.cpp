// syncbn_cpu_stats: per channel, the count, mean and sum of squared deviations (M2) of one replica's share.
//
// in   x     [outer, channels] float32, any alignment
// out  rows  float64 [world_size][2 + 2 * channels]: this rank's row, zeros in the others
//
// Algorithm: each lane walks its rows in blocks. A block sums d and d^2 in float32, d = x - shift, where the shift is
//            the mean of the lane's first rows, then the lane's mean so far: so d is about sigma however large the mean
//            is. Blocks and lanes are merged in order in float64 (Chan). Deterministic: see lanes.h.
// Tasks:     one lane in one tile of columns; memory is read once, in order but for the far rows of loops.inc.
// Traffic:   reads x once (the first rows of a lane twice); writes 16 bytes per lane and channel, and rows.
// Range:     |x - mean| below 1e18; beyond, squares overflow float32 and M2 becomes inf. Right for any outer and any
//            channels, designed for outer >= 64.
#include <string.h>

#include "call.h"
#include "lanes.h"
#include "loops.h"
#include "pool.h"

namespace syncbn::cpu {
namespace {

constexpr int kShiftRows = 8;

// Mean and M2 of `rows` > 0 rows of `columns` columns.
void lane_moments(const float *x, int64_t stride, int64_t rows, int columns, double *mean, double *m2) {
  alignas(64) float shift[kTileColumns];
  alignas(64) float sums[kTileColumns];
  alignas(64) float squares[kTileColumns];

  // In float64, where the mean of equal values is that value: a constant channel has M2 = 0.
  const int shift_rows = rows < kShiftRows ? static_cast<int>(rows) : kShiftRows;
  for (int c = 0; c < columns; ++c) mean[c] = 0;
  for (int row = 0; row < shift_rows; ++row) {
    for (int c = 0; c < columns; ++c) mean[c] += static_cast<double>(x[row * stride + c]);
  }
  for (int c = 0; c < columns; ++c) mean[c] /= shift_rows;
  for (int c = 0; c < columns; ++c) m2[c] = 0;

  for (int64_t row = 0; row < rows; row += kBlockRows) {
    const int block_rows = rows - row < kBlockRows ? static_cast<int>(rows - row) : kBlockRows;
    for (int c = 0; c < columns; ++c) {
      shift[c] = static_cast<float>(mean[c]);
      sums[c] = 0;
      squares[c] = 0;
    }
    loops().moments(x + row * stride, stride, block_rows, columns, shift, sums, squares);
    const double per_row = 1.0 / block_rows;
    const Merge merge(static_cast<double>(row), block_rows);
    for (int c = 0; c < columns; ++c) {
      const double sum = static_cast<double>(sums[c]);
      // Never so negative that M2 becomes negative: the shift is the mean of 8 of at most 128 rows, so that at least
      // 1 / 17 of the first block's squares is M2; and later blocks add the square of their distance from the mean.
      const double block_m2 = static_cast<double>(squares[c]) - sum * sum * per_row;
      merge(mean[c], m2[c], static_cast<double>(shift[c]) + sum * per_row, block_m2);
    }
  }
}

// Folds the columns of a super-row, `repeats` per channel with `rows` elements each, into channels.
void fold(int channels, int repeats, double rows, const double *column_mean, const double *column_m2, double *mean,
          double *m2) {
  for (int c = 0; c < channels; ++c) {
    mean[c] = column_mean[c];
    m2[c] = column_m2[c];
  }
  for (int repeat = 1; repeat < repeats; ++repeat) {
    const Merge merge(repeat * rows, rows);
    const int first = repeat * channels;
    for (int c = 0; c < channels; ++c) merge(mean[c], m2[c], column_mean[first + c], column_m2[first + c]);
  }
}

// Mean and M2 of one task, at columns.begin of mean and m2.
void run_task(const Lanes &lanes, int64_t task, const float *x, double *mean, double *m2) {
  const Range rows = lanes.rows(task);
  const Range columns = lanes.columns(task);
  const int width = static_cast<int>(columns.end - columns.begin);
  const int64_t supers = (rows.end - rows.begin) / lanes.super_row;
  const int64_t rest = (rows.end - rows.begin) % lanes.super_row;
  const float *begin = x + rows.begin * lanes.channels + columns.begin;
  mean += columns.begin;
  m2 += columns.begin;
  if (lanes.super_row == 1) {
    lane_moments(begin, lanes.channels, supers, width, mean, m2);
    return;
  }
  alignas(64) double column_mean[kTileColumns];
  alignas(64) double column_m2[kTileColumns];
  const float *rest_begin = begin + supers * lanes.super_row * lanes.channels;
  if (supers == 0) {
    lane_moments(rest_begin, lanes.channels, rest, width, mean, m2);
    return;
  }
  const int super_columns = lanes.super_row * width;
  lane_moments(begin, super_columns, supers, super_columns, column_mean, column_m2);
  fold(width, lanes.super_row, static_cast<double>(supers), column_mean, column_m2, mean, m2);
  if (rest == 0) return;
  lane_moments(rest_begin, lanes.channels, rest, width, column_mean, column_m2);
  const Merge merge(static_cast<double>(supers * lanes.super_row), static_cast<double>(rest));
  for (int c = 0; c < width; ++c) merge(mean[c], m2[c], column_mean[c], column_m2[c]);
}

// The lanes' results in lane order, into the replica's row.
void merge_lanes(const Lanes &lanes, const double *workspace, double *mean, double *m2) {
  const int64_t channels = lanes.channels;
  memcpy(mean, workspace, static_cast<size_t>(channels) * sizeof(double));
  memcpy(m2, workspace + channels, static_cast<size_t>(channels) * sizeof(double));
  for (int64_t lane = 1; lane < lanes.lanes; ++lane) {
    const Range rows = part(lanes.outer, lanes.super_row, lanes.lanes, lane);
    const Merge merge(static_cast<double>(rows.begin), static_cast<double>(rows.end - rows.begin));
    const double *lane_mean = workspace + lane * kLaneValues * channels;
    const double *lane_m2 = lane_mean + channels;
    for (int64_t c = 0; c < channels; ++c) merge(mean[c], m2[c], lane_mean[c], lane_m2[c]);
  }
}

}  // namespace
}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_stats(const syncbn_stats_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;

  const int64_t channels = args->channels;
  const int64_t row_length = syncbn::kForwardRowHead + 2 * channels;
  double *rows = pointer<double>(args->rows);
  memset(rows, 0, static_cast<size_t>(args->world_size * row_length) * sizeof(double));
  double *row = rows + args->rank * row_length;
  row[0] = args->signature;
  if (args->outer == 0) return SYNCBN_OK;

  const Lanes lanes(args->outer, channels);
  double *workspace = pointer<double>(args->workspace);
  share(args->stream, lanes.tasks(), [&](Tasks &tasks) {
    for (int64_t task; (task = tasks.next()) >= 0;) {
      double *mean = workspace + lanes.lane(task) * kLaneValues * channels;
      run_task(lanes, task, pointer<const float>(args->x), mean, mean + channels);
    }
  });
  row[1] = static_cast<double>(args->outer);
  double *mean = row + syncbn::kForwardRowHead;
  merge_lanes(lanes, workspace, mean, mean + channels);
  return SYNCBN_OK;
}
