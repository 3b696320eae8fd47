// syncbn_cpu_normalize: y = v or its positive part, v = xhat * gamma + beta + residual, with renorm and adjustment as
// syncbn.h says, xhat = (x - mean) / sqrt(variance + epsilon); and the state.
//
// in   x, residual  [outer, channels, inner] float32, float16, bfloat16 or float64, aligned to their elements; y may be
//                   either; residual may be absent
//      gamma, beta  [channels] parameters (float64 for float64 tensors, else float32), or absent
//      adjust_scale, adjust_bias  [outer, channels, inner] parameters, or absent
//      rows         batch: float64 [world_size][forward row] after the all-reduce
// i/o  moving_mean, moving_variance; with renorm moving_stddev, renorm_mean, renorm_stddev
//                   [channels] parameters; written by batch only
//      updates      int64, or absent
//      saved        float64 [5][channels] or absent: count (0 in inference), mean, 1 / sigma, r, d; SYNCBN_SAVED reads
//      it
// out  y            [outer, channels, inner]
//      relu_mask    uint8 [outer, channels, inner] or absent: 1 where v > 0
//
// Algorithm: each thread merges the rows of a tile's channels in rank order in float64 and makes a table of three
//            factors. The mean is a pair of floats: x - high is exact for x near the mean, and the low part is in the
//            offset. When all elements are written, saved and then the state are, if the step is accepted. Element by
//            element: deterministic. With an adjustment one element after the other.
// Traffic:   reads x (and residual) once, writes y (and relu_mask) once, y around the caches if large; rows once per
//            thread and once more at the end.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "call.h"
#include "operations.h"
#include "rows.h"
#include "table.h"
#include "transform.h"
#include "whole.h"

namespace syncbn::cpu {
namespace {

// What a few channels are normalized with.
struct Statistics {
  double count[kRowChannels];
  double mean[kRowChannels];
  double variance[kRowChannels];  // not of SYNCBN_SAVED
  double inverse[kRowChannels];   // 1 / sqrt(variance + epsilon)
  double r[kRowChannels];
  double d[kRowChannels];
};

template <typename R>
void renormalize(const syncbn_normalize_args &args, int64_t first, int count, Statistics &statistics) {
  for (int c = 0; c < count; ++c) {
    const double stddev = parameter<R>(args.renorm_stddev, first + c, 0);
    const double limit = std::max(stddev, std::sqrt(args.epsilon));
    const double sigma = std::sqrt(statistics.variance[c] + args.epsilon);
    // In this order of arguments NaN stays NaN.
    const double r = std::max(sigma / limit, args.r_min);
    const double d = std::max((statistics.mean[c] - parameter<R>(args.renorm_mean, first + c, 0)) / limit, -args.d_max);
    statistics.r[c] = std::min(r, args.r_max);
    statistics.d[c] = std::min(d, args.d_max);
  }
}

// Those of channels [first, first + count).
template <typename R>
void look_up(const syncbn_normalize_args &args, int64_t first, int count, Statistics &statistics) {
  if (args.statistics == SYNCBN_SAVED) {
    const Saved saved(args.saved, args.channels);
    std::copy_n(saved.count + first, count, statistics.count);
    std::copy_n(saved.mean + first, count, statistics.mean);
    std::copy_n(saved.inverse + first, count, statistics.inverse);
    std::copy_n(saved.r + first, count, statistics.r);
    std::copy_n(saved.d + first, count, statistics.d);
    return;
  }
  if (args.statistics == SYNCBN_BATCH) {
    merge_forward_rows(args, first, count, statistics.count, statistics.mean, statistics.variance);
    // Where nothing counts, of zeros.
    for (int c = 0; c < count; ++c) statistics.variance[c] /= statistics.count[c] > 0 ? statistics.count[c] : 1;
  } else {
    for (int c = 0; c < count; ++c) {
      statistics.count[c] = 0;
      statistics.mean[c] = parameter<R>(args.moving_mean, first + c, 0);
      statistics.variance[c] = parameter<R>(args.moving_variance, first + c, 0);
    }
  }
  for (int c = 0; c < count; ++c) {
    statistics.inverse[c] = 1 / std::sqrt(statistics.variance[c] + args.epsilon);
    statistics.r[c] = 1;
    statistics.d[c] = 0;
  }
  if (args.statistics == SYNCBN_BATCH && args.renorm) renormalize<R>(args, first, count, statistics);
}

// Calls each(statistics, first, count) for some channels, a few at a time.
template <typename R, typename Each>
void for_channels(const syncbn_normalize_args &args, Range channels, const Each &each) {
  Statistics statistics;
  for (int64_t first = channels.begin; first < channels.end; first += kRowChannels) {
    const int count = static_cast<int>(smaller(channels.end - first, kRowChannels));
    look_up<R>(args, first, count, statistics);
    each(statistics, first, count);
  }
}

template <typename R>
struct Table {
  alignas(64) R shift[kTableRoom];
  alignas(64) R scale[kTableRoom];
  alignas(64) R offset[kTableRoom];

  void make(const syncbn_normalize_args &args, const Map &map, Range channels) {
    for_channels<R>(args, channels, [&](const Statistics &s, int64_t first, int count) {
      for (int c = 0; c < count; ++c) {
        const Affine<R> affine(s.mean[c], s.inverse[c], s.r[c], s.d[c], parameter<R>(args.gamma, first + c, 1),
                               parameter<R>(args.beta, first + c, 0));
        const int64_t at = first - channels.begin + c;
        shift[at] = affine.shift;
        scale[at] = affine.scale;
        offset[at] = affine.offset;
      }
    });
    for (R *factor : {shift, scale, offset}) to_table(map, static_cast<int>(channels.size()), factor);
  }
};

template <typename T>
void run_loops(const syncbn_normalize_args &args, const Map &map, Tasks &tasks) {
  ForwardTensors<T> tensors;
  tensors.x = pointer<const T>(args.x);
  tensors.y = pointer<T>(args.y);
  tensors.residual = pointer<const T>(args.residual);
  tensors.relu_mask = pointer<uint8_t>(args.relu_mask);
  tensors.relu = args.relu != 0;
  // Lines of x or residual are in the cache when y is written over it.
  tensors.stream = args.x != args.y && args.residual != args.y &&
                   map.layout.elements() * static_cast<int64_t>(sizeof(T)) >= kStreamBytes / (args.residual ? 3 : 2);
  Table<Real<T>> table;
  for_each_tile(
      map, tasks, [&](Range channels) { table.make(args, map, channels); },
      [&](Range rows, Range channels) {
        for_each_span(map, rows, channels, [&](const Span &span, const Walk &walk) {
          loops_of<T>().normalize(tensors, span, {table.shift, table.scale, table.offset}, walk);
        });
      });
  if (tensors.stream) drain_streaming();
}

// One element after the other.
template <typename T>
void run_adjusted(const syncbn_normalize_args &args, const Map &map, Tasks &tasks) {
  using R = Real<T>;
  const T *x = pointer<const T>(args.x);
  const T *residual = pointer<const T>(args.residual);
  const R *adjust_scale = pointer<const R>(args.adjust_scale);
  const R *adjust_bias = pointer<const R>(args.adjust_bias);
  T *y = pointer<T>(args.y);
  uint8_t *relu_mask = pointer<uint8_t>(args.relu_mask);
  Value<R> values[kTableEntries];
  const auto make = [&](Range channels) {
    for_channels<R>(args, channels, [&](const Statistics &s, int64_t first, int count) {
      for (int c = 0; c < count; ++c) {
        values[first - channels.begin + c] = Value<R>(args, first + c, s.mean[c], s.inverse[c], s.r[c], s.d[c]);
      }
    });
  };
  for_each_tile(map, tasks, make, [&](Range rows, Range channels) {
    for_each_element(map.layout, rows, channels, [&](int64_t, int64_t channel, int64_t, int64_t index) {
      R v = values[channel - channels.begin](value(x[index]), adjust_scale, adjust_bias, index);
      if (residual) v += value(residual[index]);
      if (args.relu && relu_mask) relu_mask[index] = v > 0;
      y[index] = element<T>(args.relu && v <= 0 ? 0 : v);
    });
  });
}

template <typename R>
void step(syncbn_address state, int64_t channel, double towards, double decay) {
  R &value = pointer<R>(state)[channel];
  const double old = static_cast<double>(value);
  value = static_cast<R>(old + (towards - old) * decay);
}

// The step that channel `first + c` takes.
template <typename R>
void update(const syncbn_normalize_args &args, double decay, const Statistics &s, int64_t first, int c) {
  const int64_t channel = first + c;
  step<R>(args.moving_mean, channel, s.mean[c], decay);
  if (args.renorm) {
    const double sigma = std::sqrt(s.variance[c] + args.epsilon);
    const double old = parameter<R>(args.moving_stddev, channel, 0);
    const double stddev = old + (sigma - old) * decay;
    pointer<R>(args.moving_stddev)[channel] = static_cast<R>(stddev);
    pointer<R>(args.moving_variance)[channel] = static_cast<R>(std::max(stddev * stddev - args.epsilon, 0.0));
    step<R>(args.renorm_mean, channel, s.mean[c], args.renorm_decay);
    step<R>(args.renorm_stddev, channel, sigma, args.renorm_decay);
    return;
  }
  const double correction = args.unbiased && s.count[c] > 1 ? s.count[c] / (s.count[c] - 1) : 1;
  step<R>(args.moving_variance, channel, s.variance[c] * correction, decay);
}

// saved, and the state if the step is accepted. Once every element is written: renorm needs the state before the step.
template <typename R>
void write_results(const syncbn_normalize_args &args, bool accepted) {
  int64_t *updates = pointer<int64_t>(args.updates);
  const double decay = accepted && args.cumulative ? 1 / (static_cast<double>(*updates) + 1) : args.decay;
  std::atomic<bool> changed{false};
  share(args.stream, divide_up(args.channels, kRowChannels), [&](Tasks &tasks) {
    for (int64_t task; (task = tasks.next()) >= 0;) {
      const Range channels = {task * kRowChannels, smaller((task + 1) * kRowChannels, args.channels)};
      for_channels<R>(args, channels, [&](const Statistics &s, int64_t first, int count) {
        if (args.saved) {
          const Saved saved(args.saved, args.channels);
          std::copy_n(s.count, count, saved.count + first);
          std::copy_n(s.mean, count, saved.mean + first);
          std::copy_n(s.inverse, count, saved.inverse + first);
          std::copy_n(s.r, count, saved.r + first);
          std::copy_n(s.d, count, saved.d + first);
        }
        for (int c = 0; accepted && c < count; ++c) {
          if (!(s.count[c] > 0)) continue;
          update<R>(args, decay, s, first, c);
          changed.store(true, std::memory_order_relaxed);
        }
      });
    }
  });
  if (changed.load(std::memory_order_relaxed) && updates) ++*updates;
}

}  // namespace

void map(const syncbn_normalize_args &args, const Map &map, Tasks &tasks) {
  with_element(args.dtype, [&](auto element) {
    const auto run = args.adjust_scale ? run_adjusted<decltype(element)> : run_loops<decltype(element)>;
    run(args, map, tasks);
  });
}

void finish(const syncbn_normalize_args &args) {
  if (args.statistics == SYNCBN_SAVED) return;
  const int64_t row_length = forward_row_length(args.channels, args.channel_counts != 0);
  const bool accepted = args.statistics == SYNCBN_BATCH && accept_rows(pointer<const double>(args.rows), row_length,
                                                                       args.world_size, args.signature, args.control);
  if (!args.saved && !accepted) return;
  const auto write = args.dtype == SYNCBN_FLOAT64 ? write_results<double> : write_results<float>;
  write(args, accepted);
}

}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_normalize(const syncbn_normalize_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;
  map(*args);
  return SYNCBN_OK;
}
