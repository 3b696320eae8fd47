// Per-channel count, mean and sum of squared deviations (M2) of one rank's share, into its row.
//
// in   x          [rows, channels] float32 row-major
// out  exchange   [world_size][2 + 2 * channels] float64: this rank's [signature, count, mean, M2], zeros elsewhere
//      workspace  see reduce.cuh
//
// Algorithm  A thread adds up 64 rows at a time in float32, shifted by the mean that it has so far (at first that of
//            its first 8 rows), and merges them into a float64 mean and M2; these merge in a fixed tree. So the
//            variance keeps its digits at |mean| = 1e4 sigma. Squared deviations must fit float32: values within 1e18
//            of their channel's mean. Infinities and NaN stay in their channel.
// Launch     block (1 .. 8, 256 .. 32), grid (channels / 32, row blocks), at most 264 blocks up to 8448 channels.
// Traffic    reads x once; writes 16 bytes a channel and row block, and the rows. 64 KB in flight a multiprocessor.
// Designed   for channels >= 32 and a multiple of 4 at 16-byte aligned x; right for all others, element by element.
// Result     deterministic; the order of the sums is the same on every device.
// Index      64-bit: rows * channels may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

constexpr Tiling kTiling = {kReduceLanes, 8, kReduceBlocks};
static_assert(kFlushRows % kTiling.rows_at_once == 0, "a flush follows a whole number of loads");

struct StatsParams {
  const float *x;
  int64_t rows;
  int64_t channels;
  Rows exchange;
  int rank;
  double signature;
  Workspace workspace;
};

// Near the values of a thread's first rows: the mean of them, relative to the first, so that equal values give it
// exactly.
template <int kRows>
__device__ __forceinline__ Quad first_shift(const Quad (&x)[kRows], int rows) {
  Quad shift = x[0];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    float sum = 0;
#pragma unroll
    for (int k = 1; k < kRows; ++k) sum += k < rows ? x[k].v[j] - x[0].v[j] : 0.0f;
    shift.v[j] += sum / static_cast<float>(rows);
  }
  return shift;
}

// Deviations from a shift, and their squares.
struct Deviations {
  Quad sum;
  Quad squares;
};

// Adds up to kRows rows. At the first of a thread, the shift is set.
template <bool kVector>
__device__ __forceinline__ void add_rows(Deviations &deviations, Quad &shift, bool first, const float *x,
                                         int64_t stride, int rows, int width) {
  constexpr int kRows = kTiling.rows_at_once;
  Quad quads[kRows];
  load_rows<kVector, Keep>(quads, x, stride, rows, width);
  if (first) shift = first_shift(quads, rows);
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (k < rows) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float d = quads[k].v[j] - shift.v[j];
        deviations.sum.v[j] += d;
        deviations.squares.v[j] = fmaf(d, d, deviations.squares.v[j]);
      }
    }
  }
}

// Mean and M2 of `rows` rows.
__device__ __forceinline__ Partial moments(const Deviations &deviations, const Quad &shift, int rows) {
  Partial result;
  result.rows = rows;
  const double inverse = 1.0 / rows;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const double mean = deviations.sum.v[j] * inverse;
    result.first[j] = shift.v[j] + mean;
    result.second[j] = deviations.squares.v[j] - deviations.sum.v[j] * mean;
  }
  return result;
}

// Mean and M2 of a thread's rows.
template <bool kVector>
__device__ __forceinline__ Partial accumulate(const StatsParams &p, const ThreadTile &tile) {
  constexpr int kRows = kTiling.rows_at_once;
  const int64_t stride = blockDim.y * p.channels;
  const float *x = p.x + tile.first * p.channels + tile.channel;
  Partial total = {};
  Quad shift = {};
  for (int64_t left = tile.count; left > 0; left -= kFlushRows) {
    const int rows = left < kFlushRows ? static_cast<int>(left) : kFlushRows;
    Deviations deviations = {};
    int done = 0;
    for (; done + kRows <= rows; done += kRows, x += kRows * stride) {
      add_rows<kVector>(deviations, shift, total.rows + done == 0, x, stride, kRows, tile.width);
    }
    if (done < rows) {
      add_rows<kVector>(deviations, shift, total.rows + done == 0, x, stride, rows - done, tile.width);
    }
    MergeMoments::merge(total, moments(deviations, shift, rows));
#pragma unroll
    for (int j = 0; j < kWidth; ++j) shift.v[j] = static_cast<float>(total.first[j]);
  }
  return total;
}

template <bool kVector>
__global__ void __launch_bounds__(kThreads, 2) stats_kernel(const __grid_constant__ StatsParams p) {
  const ThreadTile tile(p.rows, p.channels);
  Partial share = accumulate<kVector>(p, tile);
  if (!reduce_tile<MergeMoments>(share, tile, p.rows, p.channels, p.workspace)) return;
  write_rows(p.exchange, p.rank, tile, share, {p.signature, static_cast<double>(p.rows)});
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_stats(const syncbn_stats_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  StatsParams p;
  p.x = pointer<const float>(args->x);
  p.rows = args->outer;
  p.channels = args->channels;
  p.exchange = {pointer<double>(args->rows), kForwardRowHead, args->channels, args->world_size};
  p.rank = args->rank;
  p.signature = args->signature;
  p.workspace = workspace_at(args->workspace);
  const auto kernel = rows_are_aligned(args->x, args->channels) ? stats_kernel<true> : stats_kernel<false>;
  return enqueue("stats", kernel, launch_shape(kTiling, p.rows, p.channels), args->stream, p);
}
