// syncbn_cpu_backward_reduce: per channel, the sums of A * g and of A * g * xhat of one replica's share, A the
// adjustment's scale or 1, g the gradient behind the ReLU; the gradients of gamma and beta; and g itself.
//
// in   x, dy       [outer, channels, inner] float32, float16, bfloat16 or float64, aligned to their elements
//      saved       float64 [5][channels]: count, mean, 1 / sigma, r, d
//      mask        uint8 with strides, or absent
//      relu_mask   uint8 [outer, channels, inner]; absent: v is computed again
//      gamma, beta, adjust_scale, adjust_bias  as in normalize
// out  rows        float64 [world_size][backward row] or absent: this rank's row, zeros in the others
//      beta_grad, gamma_grad  [channels] of the parameters' type, or absent
//      dresidual   [outer, channels, inner] or absent: g; may be dy
//
// Algorithm: as stats, with sums of g and g * (x - high) in float32 (float64 for float64 tensors) within a block, high
//            being the mean rounded to float32: what was rounded off and 1 / sigma are applied once per channel in
//            float64. With a mask or an adjustment one element after the other, in float64. Deterministic.
// Tasks:     one lane in one tile of channels.
// Traffic:   reads x and dy (and relu_mask) once; writes dresidual once, 16 bytes per lane and channel, and rows.
#include "call.h"
#include "loops.h"
#include "operations.h"
#include "sums.h"
#include "transform.h"
#include "whole.h"

namespace syncbn::cpu {
namespace {

// Of a lane and a channel: what is summed. The last two differ from the first, and from 0, with an adjustment.
enum { kSum, kProduct, kPlain, kBias, kValues };  // A g, A g (x - mean), g, g * adjust_bias
static_assert(kValues <= kLaneValues);

Gate gate_of(const syncbn_backward_reduce_args &args) {
  return !args.relu ? Gate::kOpen : args.relu_mask ? Gate::kBytes : Gate::kValue;
}

// The sums of a lane in a tile of channels: value i of a channel is at out + i * args.channels.
template <typename T>
void sum_lane(const syncbn_backward_reduce_args &args, const Lanes &lanes, Range rows, Range channels, double *out) {
  using R = Real<T>;
  alignas(64) R shift[kTileColumns];
  alignas(64) R scale[kTileColumns];
  alignas(64) R offset[kTileColumns];
  alignas(64) R sums[kTileColumns];
  alignas(64) R products[kTileColumns];
  const Saved saved(args.saved, args.channels);
  const int count = static_cast<int>(channels.size());
  double *sum = out + kSum * args.channels;
  double *product = out + kProduct * args.channels;
  for (int c = 0; c < count; ++c) {
    const int64_t channel = channels.begin + c;
    const Affine<R> affine(saved.mean[channel], saved.inverse[channel], saved.r[channel], saved.d[channel],
                           parameter<R>(args.gamma, channel, 1), parameter<R>(args.beta, channel, 0));
    shift[c] = affine.shift;
    scale[c] = affine.scale;
    offset[c] = affine.offset;
    sum[c] = product[c] = 0;
  }
  for (R *factor : {shift, scale, offset}) spread_to_sums(lanes, count, factor);

  ReduceTensors<T> tensors;
  tensors.x = pointer<const T>(args.x);
  tensors.dy = pointer<const T>(args.dy);
  tensors.dresidual = pointer<T>(args.dresidual);
  tensors.relu_mask = pointer<const uint8_t>(args.relu_mask);
  tensors.gate = gate_of(args);
  const AffineTable<R> table = {shift, scale, offset};
  for_each_block(lanes, rows, channels, [&](const Block &block) {
    const int64_t columns = lanes.columns(channels);
    for (int64_t i = 0; i < columns; ++i) sums[i] = products[i] = 0;
    for_each_part(
        lanes, block, channels,
        [&](int64_t begin, const Runs &runs) {
          loops_of<T>().products_of_runs(tensors, begin, runs, table, sums, products);
        },
        [&](int64_t begin, const Rows &part, int part_columns) {
          loops_of<T>().products_of_columns(tensors, begin, part, part_columns, table, sums, products);
        });
    add_columns<T>(lanes, count, sums, sum);
    add_columns<T>(lanes, count, products, product);
  });
  // x was compared with the high part of the mean.
  for (int c = 0; c < count; ++c) product[c] -= SplitMean<R>(saved.mean[channels.begin + c]).low_times(sum[c]);
}

// The same with a mask or an adjustment.
template <typename T>
void sum_single_elements(const syncbn_backward_reduce_args &args, const Lanes &lanes, Range rows, Range channels,
                         double *out) {
  using R = Real<T>;
  const T *x = pointer<const T>(args.x);
  const T *dy = pointer<const T>(args.dy);
  T *dresidual = pointer<T>(args.dresidual);
  const uint8_t *relu_mask = pointer<const uint8_t>(args.relu_mask);
  const R *adjust_scale = pointer<const R>(args.adjust_scale);
  const R *adjust_bias = pointer<const R>(args.adjust_bias);
  const Gate gate = gate_of(args);
  const Mask mask(args);
  const Saved saved(args.saved, args.channels);
  Value<R> values[kTileColumns];
  for (int64_t c = 0; c < channels.size(); ++c) {
    const int64_t channel = channels.begin + c;
    values[c] =
        Value<R>(args, channel, saved.mean[channel], saved.inverse[channel], saved.r[channel], saved.d[channel]);
    for (int i = 0; i < kValues; ++i) out[i * args.channels + c] = 0;
  }
  for_each_element(lanes.layout, rows, channels, [&](int64_t outer, int64_t channel, int64_t inner, int64_t index) {
    const int64_t c = channel - channels.begin;
    double g = static_cast<double>(value(dy[index]));
    if (gate == Gate::kBytes && relu_mask[index] == 0) g = 0;
    if (gate == Gate::kValue && !(values[c](value(x[index]), adjust_scale, adjust_bias, index) > 0)) g = 0;
    if (dresidual) dresidual[index] = element<T>(static_cast<R>(g));
    // What does not count may be anything.
    if (g == 0 && !mask.counts(outer, channel, inner)) return;
    const double scaled = adjust_scale ? static_cast<double>(adjust_scale[index]) * g : g;
    double *sums = out + c;
    sums[kSum * args.channels] += scaled;
    sums[kProduct * args.channels] += scaled * (static_cast<double>(value(x[index])) - saved.mean[channel]);
    if (!adjust_scale) return;
    sums[kPlain * args.channels] += g;
    sums[kBias * args.channels] += static_cast<double>(adjust_bias[index]) * g;
  });
}

bool single_elements(const syncbn_backward_reduce_args &args) { return args.mask != 0 || args.adjust_scale != 0; }

// Float64 values of a lane.
int64_t lane_length(const syncbn_backward_reduce_args &args) {
  return args.channels * (single_elements(args) ? kValues : kPlain);
}

// Of the sums of the whole share, at `sums`, or null where there are no elements: the gradients, and the row.
template <typename R>
void write_results(const syncbn_backward_reduce_args &args, const double *sums, Range range) {
  const int64_t channels = args.channels;
  const Saved saved(args.saved, channels);
  R *gamma_grad = pointer<R>(args.gamma_grad);
  R *beta_grad = pointer<R>(args.beta_grad);
  double *row = args.rows ? row_of(args).channels : nullptr;
  // Nothing summed is 0, also where a factor is infinite or NaN; behind a mask that may be any channel.
  const bool may_be_nothing = !sums || args.mask;
  const auto scaled = [may_be_nothing](double sum, double factor) {
    return may_be_nothing && sum == 0 ? 0 : sum * factor;
  };
  for (int64_t c = range.begin; c < range.end; ++c) {
    const double sum = sums ? sums[kSum * channels + c] : 0;
    const double product = sums ? sums[kProduct * channels + c] : 0;
    const double sum_xhat = scaled(product, saved.inverse[c]);
    const double plain = sums && args.adjust_scale ? sums[kPlain * channels + c] : sum;
    const double bias = sums && args.adjust_scale ? sums[kBias * channels + c] : 0;
    if (row) {
      row[c] = sum;
      row[channels + c] = sum_xhat;
    }
    if (beta_grad) beta_grad[c] = static_cast<R>(plain);
    // The factor of gamma is (xhat * r + d) * adjust_scale + adjust_bias.
    if (gamma_grad)
      gamma_grad[c] =
          static_cast<R>(scaled(sum_xhat, saved.r[c]) + (saved.d[c] == 0 ? 0 : scaled(sum, saved.d[c])) + bias);
  }
}

}  // namespace

Row row_of(const syncbn_backward_reduce_args &args) {
  const int64_t length = backward_row_length(args.channels);
  double *row = pointer<double>(args.rows) + args.rank * length;
  return {row, row + kBackwardRowHead, length, 2};
}

void sum(const syncbn_backward_reduce_args &args, const Lanes &lanes, int64_t task) {
  const Range tile = lanes.channels(task);
  double *out = pointer<double>(args.workspace) + lanes.lane(task) * lane_length(args) + tile.begin;
  with_element(args.dtype, [&](auto element) {
    const auto sum_elements =
        single_elements(args) ? sum_single_elements<decltype(element)> : sum_lane<decltype(element)>;
    sum_elements(args, lanes, lanes.rows(task), tile, out);
  });
}

void write_sums(const syncbn_backward_reduce_args &args, const Lanes *lanes, Range channels) {
  double *sums = pointer<double>(args.workspace);
  const int64_t length = lane_length(args);
  // In order, in the first lane's place.
  for (int64_t lane = 1; lanes && lane < lanes->lanes; ++lane) {
    for (int64_t value = 0; value < length; value += args.channels) {
      double *first = sums + value;
      for (int64_t c = channels.begin; c < channels.end; ++c) first[c] += first[lane * length + c];
    }
  }
  const auto write = args.dtype == SYNCBN_FLOAT64 ? write_results<double> : write_results<float>;
  write(args, lanes ? sums : nullptr, channels);
}

void write_head(const syncbn_backward_reduce_args &args) {
  if (args.rows) row_of(args).head[0] = args.signature;
}

}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_backward_reduce(const syncbn_backward_reduce_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;
  reduce(*args);
  return SYNCBN_OK;
}
