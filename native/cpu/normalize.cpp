// syncbn_cpu_normalize: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, and the moving statistics.
//
// in   x                 [outer, channels] float32, any alignment; y may be x
//      gamma, beta       [channels] float32 or absent
//      rows              training: float64 [world_size][2 + 2 * channels] after the all-reduce
// i/o  moving_mean, moving_variance  [channels] float32; inference only reads them
// out  y                 [outer, channels] float32
//      saved             float64 [1 + 2 * channels] or absent: total count (0 in inference), mean, 1 / sigma
//
// Algorithm: each thread merges the rows of a tile's channels in rank order in float64 and makes a table of three
//            float32 factors. The mean is a pair of floats: x - high is exact for x near the mean, and the low part is
//            in the offset. When all elements are written, the calling thread writes saved and then the moving
//            statistics, if the step is accepted. Element by element: deterministic.
// Traffic:   reads x once, writes y once, around the caches if large; rows once per thread and once more at the end.
#include <cmath>

#include "call.h"
#include "rows.h"
#include "table.h"

namespace syncbn::cpu {
namespace {

// Float64 statistics of a few channels, as y is normalized with them.
struct Statistics {
  double mean[kRowChannels];
  double variance[kRowChannels];
  double inverse[kRowChannels];  // 1 / sqrt(variance + epsilon)

  Statistics(const syncbn_normalize_args &args, double total, int64_t first, int count) {
    if (args.training) {
      merge_forward_rows(args, first, count, mean, variance);
      const double divisor = total > 0 ? total : 1;  // no element at all: zeros
      for (int c = 0; c < count; ++c) variance[c] /= divisor;
    } else {
      const float *moving_mean = pointer<const float>(args.moving_mean) + first;
      const float *moving_variance = pointer<const float>(args.moving_variance) + first;
      for (int c = 0; c < count; ++c) {
        mean[c] = static_cast<double>(moving_mean[c]);
        variance[c] = static_cast<double>(moving_variance[c]);
      }
    }
    for (int c = 0; c < count; ++c) inverse[c] = 1 / std::sqrt(variance[c] + args.epsilon);
  }
};

// Calls each(statistics, first, count) for the channels of [begin, end), a few at a time.
template <typename Each>
void for_channels(const syncbn_normalize_args &args, double total, Range channels, const Each &each) {
  for (int64_t first = channels.begin; first < channels.end; first += kRowChannels) {
    const int count = static_cast<int>(channels.end - first < kRowChannels ? channels.end - first : kRowChannels);
    each(Statistics(args, total, first, count), first, count);
  }
}

struct Table {
  alignas(64) float shift[kTableRoom];
  alignas(64) float scale[kTableRoom];
  alignas(64) float offset[kTableRoom];

  void make(const syncbn_normalize_args &args, double total, Range columns) {
    const float *gamma = pointer<const float>(args.gamma);
    const float *beta = pointer<const float>(args.beta);
    for_channels(args, total, columns, [&](const Statistics &statistics, int64_t first, int count) {
      const int64_t at = first - columns.begin;
      for (int c = 0; c < count; ++c) {
        const double factor =
            gamma ? statistics.inverse[c] * static_cast<double>(gamma[first + c]) : statistics.inverse[c];
        const float high = static_cast<float>(statistics.mean[c]);
        const double low = statistics.mean[c] - static_cast<double>(high);
        shift[at + c] = high;
        scale[at + c] = static_cast<float>(factor);
        offset[at + c] = static_cast<float>((beta ? static_cast<double>(beta[first + c]) : 0) - low * factor);
      }
    });
    const int width = static_cast<int>(columns.end - columns.begin);
    repeat_factor(shift, width);
    repeat_factor(scale, width);
    repeat_factor(offset, width);
  }
};

void write_results(const syncbn_normalize_args &args, double total, bool update) {
  double *saved = pointer<double>(args.saved);
  float *moving_mean = pointer<float>(args.moving_mean);
  float *moving_variance = pointer<float>(args.moving_variance);
  if (saved) saved[0] = total;
  for_channels(args, total, {0, args.channels}, [&](const Statistics &statistics, int64_t first, int count) {
    for (int c = 0; saved && c < count; ++c) {
      saved[1 + first + c] = statistics.mean[c];
      saved[1 + args.channels + first + c] = statistics.inverse[c];
    }
    for (int c = 0; update && c < count; ++c) {
      const double old_mean = static_cast<double>(moving_mean[first + c]);
      const double old_variance = static_cast<double>(moving_variance[first + c]);
      moving_mean[first + c] = static_cast<float>(old_mean + (statistics.mean[c] - old_mean) * args.decay);
      moving_variance[first + c] =
          static_cast<float>(old_variance + (statistics.variance[c] - old_variance) * args.decay);
    }
  });
}

}  // namespace
}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_normalize(const syncbn_normalize_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;

  const double total = args->training ? total_count(*args) : 0;
  const Map map(args->outer, args->channels);
  const float *x = pointer<const float>(args->x);
  float *y = pointer<float>(args->y);
  // Lines of x are in the cache when y is written over it.
  const bool stream = x != y && map.outer * map.channels * 4 >= kStreamBytes / 2;
  share(args->stream, map.tasks(), [&](Tasks &tasks) {
    Table table;
    int period = 0;
    map_tasks(
        map, tasks,
        [&](Range columns) {
          table.make(*args, total, columns);
          period = table_period(static_cast<int>(columns.end - columns.begin));
        },
        [&](int64_t begin, int64_t elements) {
          loops().normalize(x + begin, y + begin, elements, {table.shift, table.scale, table.offset}, period, stream);
        });
  });

  const bool update = args->training &&
                      accept_rows(pointer<const double>(args->rows), syncbn::kForwardRowHead + 2 * args->channels,
                                  args->world_size, args->signature, args->control) &&
                      total > 0;
  if (args->saved || update) write_results(*args, total, update);
  return SYNCBN_OK;
}
