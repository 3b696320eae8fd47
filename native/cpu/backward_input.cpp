// syncbn_cpu_backward_input: dx = gamma / sigma * (dy - sum_dy / n - xhat * sum_dy_xhat / n); after an inference
// forward dx = gamma / sigma * dy.
//
// in   x, dy  [outer, channels] float32, any alignment; dx may be dy; inference does not read x
//      gamma  [channels] float32 or absent
//      saved  float64 [1 + 2 * channels]: total count n, mean, 1 / sigma
//      rows   training: float64 [world_size][1 + 2 * channels] after the all-reduce
// out  dx     [outer, channels] float32
//
// Algorithm: each thread adds up the rows of a tile's channels in rank order in float64 and makes a table of four
//            float32 factors; the mean is a pair of floats, as in normalize. Element by element: deterministic.
// Traffic:   reads x (training) and dy once, writes dx once, around the caches if large; rows once per thread.
#include "call.h"
#include "rows.h"
#include "table.h"

namespace syncbn::cpu {
namespace {

struct Table {
  alignas(64) float shift[kTableRoom];
  alignas(64) float scale[kTableRoom];
  alignas(64) float slope[kTableRoom];
  alignas(64) float offset[kTableRoom];

  void make(const syncbn_backward_input_args &args, Range columns) {
    for (int64_t first = columns.begin; first < columns.end; first += kRowChannels) {
      const int count = static_cast<int>(columns.end - first < kRowChannels ? columns.end - first : kRowChannels);
      make(args, first, count, static_cast<int>(first - columns.begin));
    }
    const int width = static_cast<int>(columns.end - columns.begin);
    repeat_factor(shift, width);
    repeat_factor(scale, width);
    repeat_factor(slope, width);
    repeat_factor(offset, width);
  }

 private:
  void make(const syncbn_backward_input_args &args, int64_t first, int count, int at) {
    const float *gamma = pointer<const float>(args.gamma);
    const double *saved = pointer<const double>(args.saved);
    const double *mean = saved + 1 + first;
    const double *inverse = mean + args.channels;
    double factor[kRowChannels];
    for (int c = 0; c < count; ++c) {
      factor[c] = gamma ? inverse[c] * static_cast<double>(gamma[first + c]) : inverse[c];
      scale[at + c] = static_cast<float>(factor[c]);
    }
    if (!args.training) {
      for (int c = 0; c < count; ++c) shift[at + c] = slope[at + c] = offset[at + c] = 0;
      return;
    }
    double sum_dy[kRowChannels];
    double sum_dy_xhat[kRowChannels];
    merge_backward_rows(args, first, count, sum_dy, sum_dy_xhat);
    for (int c = 0; c < count; ++c) {
      const float high = static_cast<float>(mean[c]);
      const double low = mean[c] - static_cast<double>(high);
      const double per_x = -factor[c] * inverse[c] * (sum_dy_xhat[c] / saved[0]);
      shift[at + c] = high;
      slope[at + c] = static_cast<float>(per_x);
      offset[at + c] = static_cast<float>(-factor[c] * (sum_dy[c] / saved[0]) - per_x * low);
    }
  }
};

}  // namespace
}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_backward_input(const syncbn_backward_input_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  const DefaultFloatEnvironment environment;

  const Map map(args->outer, args->channels);
  const float *x = pointer<const float>(args->x);
  const float *dy = pointer<const float>(args->dy);
  float *dx = pointer<float>(args->dx);
  const int64_t tensors = args->training ? 3 : 2;
  // Lines of dy are in the cache when dx is written over it.
  const bool stream = dx != dy && map.outer * map.channels * 4 >= kStreamBytes / tensors;
  share(args->stream, map.tasks(), [&](Tasks &tasks) {
    Table table;
    int period = 0;
    map_tasks(
        map, tasks,
        [&](Range columns) {
          table.make(*args, columns);
          period = table_period(static_cast<int>(columns.end - columns.begin));
        },
        [&](int64_t begin, int64_t elements) {
          if (args->training) {
            loops().gradient(x + begin, dy + begin, dx + begin, elements,
                             {table.shift, table.scale, table.slope, table.offset}, period, stream);
          } else {
            loops().normalize(dy + begin, dx + begin, elements, {table.shift, table.scale, table.offset}, period,
                              stream);
          }
        });
  });
  if (args->training) {
    accept_rows(pointer<const double>(args->rows), syncbn::kBackwardRowHead + 2 * args->channels, args->world_size,
                args->signature, args->control);
  }
  return SYNCBN_OK;
}
