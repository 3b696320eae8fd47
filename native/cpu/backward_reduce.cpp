// syncbn_cpu_backward_reduce: per channel, the sums of dy and of dy * (x - mean) / sigma of one replica's share.
//
// in   x, dy  [outer, channels] float32, any alignment
//      saved  float64 [1 + 2 * channels]: total count, mean, 1 / sigma
// out  rows   float64 [world_size][1 + 2 * channels] or absent: this rank's row, zeros in the others
//      beta_grad, gamma_grad  [channels] float32 or absent: the same two sums
//
// Algorithm: as stats, with sums of dy and of dy * (x - high) in float32 within a block, high being the mean rounded to
//            float32: what was rounded off and 1 / sigma are applied once per channel in float64. Deterministic.
// Tasks:     one lane in one tile of columns.
// Traffic:   reads x and dy once; writes 16 bytes per lane and channel, and rows.
#include <string.h>

#include "call.h"
#include "lanes.h"
#include "loops.h"
#include "pool.h"

namespace syncbn::cpu {
namespace {

struct Tensors {
  const float *x;
  const float *dy;
};

// The two sums of `rows` rows of `columns` columns.
void lane_products(Tensors at, int64_t stride, int64_t rows, int columns, const float *shift, double *sum_dy,
                   double *sum_product) {
  alignas(64) float sums[kTileColumns];
  alignas(64) float products[kTileColumns];
  for (int c = 0; c < columns; ++c) sum_dy[c] = sum_product[c] = 0;
  for (int64_t row = 0; row < rows; row += kBlockRows) {
    const int block_rows = rows - row < kBlockRows ? static_cast<int>(rows - row) : kBlockRows;
    for (int c = 0; c < columns; ++c) sums[c] = products[c] = 0;
    loops().products(at.x + row * stride, at.dy + row * stride, stride, block_rows, columns, shift, sums, products);
    for (int c = 0; c < columns; ++c) {
      sum_dy[c] += static_cast<double>(sums[c]);
      sum_product[c] += static_cast<double>(products[c]);
    }
  }
}

// The two sums of one task, at columns.begin of sum_dy and sum_product.
void run_task(const Lanes &lanes, int64_t task, Tensors tensors, const double *mean, double *sum_dy,
              double *sum_product) {
  alignas(64) float shift[kTileColumns];
  const Range rows = lanes.rows(task);
  const Range columns = lanes.columns(task);
  const int width = static_cast<int>(columns.end - columns.begin);
  const int64_t supers = (rows.end - rows.begin) / lanes.super_row;
  const int64_t rest = (rows.end - rows.begin) % lanes.super_row;
  const int64_t offset = rows.begin * lanes.channels + columns.begin;
  const Tensors begin = {tensors.x + offset, tensors.dy + offset};
  sum_dy += columns.begin;
  sum_product += columns.begin;
  const int super_columns = lanes.super_row * width;
  for (int c = 0; c < super_columns; ++c) shift[c] = static_cast<float>(mean[columns.begin + c % width]);
  if (lanes.super_row == 1) {
    lane_products(begin, lanes.channels, supers, width, shift, sum_dy, sum_product);
    return;
  }
  alignas(64) double column_dy[kTileColumns];
  alignas(64) double column_product[kTileColumns];
  const int64_t rest_offset = supers * super_columns;
  lane_products({begin.x + rest_offset, begin.dy + rest_offset}, lanes.channels, rest, width, shift, sum_dy,
                sum_product);
  lane_products(begin, super_columns, supers, super_columns, shift, column_dy, column_product);
  for (int repeat = 0; repeat < lanes.super_row; ++repeat) {
    for (int c = 0; c < width; ++c) {
      sum_dy[c] += column_dy[repeat * width + c];
      sum_product[c] += column_product[repeat * width + c];
    }
  }
}

// Adds up the lanes in order, in the first lane's place.
void merge_lanes(const Lanes &lanes, double *workspace) {
  const int64_t length = kLaneValues * lanes.channels;
  for (int64_t lane = 1; lane < lanes.lanes; ++lane) {
    for (int64_t i = 0; i < length; ++i) workspace[i] += workspace[lane * length + i];
  }
}

}  // namespace
}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_backward_reduce(const syncbn_backward_reduce_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;

  const int64_t channels = args->channels;
  const double *mean = pointer<const double>(args->saved) + 1;
  const double *inverse = mean + channels;
  double *workspace = pointer<double>(args->workspace);
  const Lanes lanes(args->outer, channels);
  share(args->stream, lanes.tasks(), [&](Tasks &tasks) {
    for (int64_t task; (task = tasks.next()) >= 0;) {
      double *sum_dy = workspace + lanes.lane(task) * kLaneValues * channels;
      run_task(lanes, task, {pointer<const float>(args->x), pointer<const float>(args->dy)}, mean, sum_dy,
               sum_dy + channels);
    }
  });
  merge_lanes(lanes, workspace);

  double *sum_dy = workspace;
  double *sum_dy_xhat = workspace + channels;
  for (int64_t c = 0; c < channels; ++c) {
    const double low = mean[c] - static_cast<double>(static_cast<float>(mean[c]));
    sum_dy_xhat[c] = args->outer > 0 ? (sum_dy_xhat[c] - low * sum_dy[c]) * inverse[c] : 0;
  }
  float *beta_grad = pointer<float>(args->beta_grad);
  float *gamma_grad = pointer<float>(args->gamma_grad);
  for (int64_t c = 0; beta_grad && c < channels; ++c) beta_grad[c] = static_cast<float>(sum_dy[c]);
  for (int64_t c = 0; gamma_grad && c < channels; ++c) gamma_grad[c] = static_cast<float>(sum_dy_xhat[c]);
  if (double *rows = pointer<double>(args->rows)) {
    const int64_t row_length = syncbn::kBackwardRowHead + 2 * channels;
    memset(rows, 0, static_cast<size_t>(args->world_size * row_length) * sizeof(double));
    double *row = rows + args->rank * row_length;
    row[0] = args->signature;
    memcpy(row + syncbn::kBackwardRowHead, workspace, static_cast<size_t>(2 * channels) * sizeof(double));
  }
  return SYNCBN_OK;
}
