// syncbn_cpu_backward_input: dx = gamma * r / sigma * (A * g - s / n - xhat * t / n), s and t the sums of A * g and
// A * g * xhat over all ranks; after an inference forward, and of elements that do not count, dx = gamma * r / sigma *
// A * g. A is the adjustment's scale or 1, g is dy, behind a ReLU 0 where v is not above 0.
//
// in   x, dy  [outer, channels, inner] float32, float16, bfloat16 or float64, aligned to their elements; dx may be dy;
//             inference without relu does not read x
//      gamma, beta, adjust_scale, adjust_bias, mask  as in backward_reduce
//      saved  float64 [5][channels]: count n, mean, 1 / sigma, r, d
//      rows   training: float64 [world_size][backward row] after the all-reduce
// out  dx     [outer, channels, inner]
//
// Algorithm: each thread adds up the rows of a tile's channels in rank order in float64 and makes a table of five
//            factors; the mean is a pair of floats, as in normalize. With a mask or an adjustment one element after the
//            other. Element by element: deterministic.
// Traffic:   reads x and dy once, writes dx once, around the caches if large; rows once per thread.
#include "call.h"
#include "operations.h"
#include "rows.h"
#include "table.h"
#include "transform.h"
#include "whole.h"

namespace syncbn::cpu {
namespace {

// The sums of a few channels, divided by their counts.
struct Means {
  double g[kRowChannels];
  double g_xhat[kRowChannels];
};

// Calls each(means, first, count) for some channels, a few at a time.
template <typename Each>
void for_channels(const syncbn_backward_input_args &args, Range channels, const Each &each) {
  const Saved saved(args.saved, args.channels);
  Means means = {};
  for (int64_t first = channels.begin; first < channels.end; first += kRowChannels) {
    const int count = static_cast<int>(smaller(channels.end - first, kRowChannels));
    if (args.training) {
      merge_backward_rows(args, first, count, means.g, means.g_xhat);
      for (int c = 0; c < count; ++c) {
        const double n = saved.count[first + c];
        means.g[c] = n == 0 ? 0 : means.g[c] / n;
        means.g_xhat[c] = n == 0 ? 0 : means.g_xhat[c] / n;
      }
    }
    each(means, first, count);
  }
}

// dx = A * g * scale + ((x - shift) * slope + constant); the second term is that of elements that count.
template <typename R>
struct Factors {
  Affine<R> value;  // v = (x - shift) * scale + offset, without adjustment
  R slope;
  R constant;

  Factors() = default;
  Factors(const syncbn_backward_input_args &args, int64_t channel, double mean_g, double mean_g_xhat) {
    const Saved saved(args.saved, args.channels);
    const double mean = saved.mean[channel];
    const double inverse = saved.inverse[channel];
    const double r = saved.r[channel];
    const double gamma = parameter<R>(args.gamma, channel, 1);
    value = Affine<R>(mean, inverse, r, saved.d[channel], gamma, parameter<R>(args.beta, channel, 0));
    const double factor = inverse * r * gamma;
    const double per_x = -factor * inverse * mean_g_xhat;
    slope = static_cast<R>(per_x);
    constant = static_cast<R>(-factor * mean_g - SplitMean<R>(mean).low_times(per_x));
  }
};

template <typename R>
struct Table {
  alignas(64) R shift[kTableRoom];
  alignas(64) R scale[kTableRoom];
  alignas(64) R offset[kTableRoom];
  alignas(64) R slope[kTableRoom];
  alignas(64) R constant[kTableRoom];

  void make(const syncbn_backward_input_args &args, const Map &map, Range channels) {
    for_channels(args, channels, [&](const Means &means, int64_t first, int count) {
      for (int c = 0; c < count; ++c) {
        const Factors<R> factors(args, first + c, means.g[c], means.g_xhat[c]);
        const int64_t at = first - channels.begin + c;
        shift[at] = factors.value.shift;
        scale[at] = factors.value.scale;
        offset[at] = factors.value.offset;
        slope[at] = factors.slope;
        constant[at] = factors.constant;
      }
    });
    for (R *factor : {shift, scale, offset, slope, constant}) {
      to_table(map, static_cast<int>(channels.size()), factor);
    }
  }
};

template <typename T>
void run_loops(const syncbn_backward_input_args &args, const Map &map, Tasks &tasks) {
  BackwardTensors<T> tensors;
  tensors.x = args.training || args.relu ? pointer<const T>(args.x) : nullptr;
  tensors.dy = pointer<const T>(args.dy);
  tensors.dx = pointer<T>(args.dx);
  tensors.relu = args.relu != 0;
  tensors.training = args.training != 0;
  // Lines of dy are in the cache when dx is written over it.
  tensors.stream = args.dx != args.dy &&
                   map.layout.elements() * static_cast<int64_t>(sizeof(T)) >= kStreamBytes / (tensors.x ? 3 : 2);
  Table<Real<T>> table;
  for_each_tile(
      map, tasks, [&](Range channels) { table.make(args, map, channels); },
      [&](Range rows, Range channels) {
        for_each_span(map, rows, channels, [&](const Span &span, const Walk &walk) {
          loops_of<T>().gradient(tensors, span, {{table.shift, table.scale, table.offset}, table.slope, table.constant},
                                 walk);
        });
      });
  if (tensors.stream) drain_streaming();
}

// With a mask or an adjustment, one element after the other.
template <typename T>
void run_single_elements(const syncbn_backward_input_args &args, const Map &map, Tasks &tasks) {
  using R = Real<T>;
  const T *x = pointer<const T>(args.x);
  const T *dy = pointer<const T>(args.dy);
  T *dx = pointer<T>(args.dx);
  const R *adjust_scale = pointer<const R>(args.adjust_scale);
  const R *adjust_bias = pointer<const R>(args.adjust_bias);
  const Mask mask(args);
  const Saved saved(args.saved, args.channels);
  Factors<R> factors[kTableEntries];
  Value<R> values[kTableEntries];
  const auto make = [&](Range channels) {
    for_channels(args, channels, [&](const Means &means, int64_t first, int count) {
      for (int64_t channel = first, c = 0; c < count; ++channel, ++c) {
        const int64_t at = channel - channels.begin;
        factors[at] = Factors<R>(args, channel, means.g[c], means.g_xhat[c]);
        values[at] =
            Value<R>(args, channel, saved.mean[channel], saved.inverse[channel], saved.r[channel], saved.d[channel]);
      }
    });
  };
  for_each_tile(map, tasks, make, [&](Range rows, Range channels) {
    for_each_element(map.layout, rows, channels, [&](int64_t outer, int64_t channel, int64_t inner, int64_t index) {
      const int64_t c = channel - channels.begin;
      R g = value(dy[index]);
      if (args.relu && !(values[c](value(x[index]), adjust_scale, adjust_bias, index) > 0)) g = 0;
      if (adjust_scale) g *= adjust_scale[index];
      R result = g * factors[c].value.scale;
      if (args.training && mask.counts(outer, channel, inner)) {
        result += (value(x[index]) - factors[c].value.shift) * factors[c].slope + factors[c].constant;
      }
      dx[index] = element<T>(result);
    });
  });
}

}  // namespace

void map(const syncbn_backward_input_args &args, const Map &map, Tasks &tasks) {
  with_element(args.dtype, [&](auto element) {
    const auto run =
        args.mask || args.adjust_scale ? run_single_elements<decltype(element)> : run_loops<decltype(element)>;
    run(args, map, tasks);
  });
}

void finish(const syncbn_backward_input_args &args) {
  if (!args.training) return;
  accept_rows(pointer<const double>(args.rows), backward_row_length(args.channels), args.world_size, args.signature,
              args.control);
}

}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_backward_input(const syncbn_backward_input_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;
  map(*args);
  return SYNCBN_OK;
}
