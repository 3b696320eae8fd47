// Per-channel sums of dy and dy * xhat of one rank's share, xhat = (x - mean) / sigma: this rank's row, and its share
// of the gradients of beta and gamma.
//
// in   x, dy       [rows, channels] float32 row-major
//      saved       [1 + 2 * channels] float64: count, mean, 1 / sigma, from normalize
// out  exchange    [world_size][1 + 2 * channels] float64, or null: this rank's [signature, sum_dy, sum_dy_xhat],
//                  zeros elsewhere
//      gamma_grad  [channels] float32, or null: sum_dy_xhat
//      beta_grad   [channels] float32, or null: sum_dy
//      workspace   see reduce.cuh
//
// Algorithm  A thread adds up dy and dy * (x - high part of the mean) over 64 rows at a time in float32, and these in
//            float64; the sums of threads and blocks are added in a fixed tree. What the low part of the mean and 1 /
//            sigma do to the sum is done to the sum.
// Launch     block (1 .. 8, 256 .. 32), grid (channels / 32, row blocks), at most 264 blocks up to 8448 channels.
// Traffic    reads x and dy once; writes 16 bytes a channel and row block, the rows and the gradients.
// Designed   for channels >= 32 and a multiple of 4 at 16-byte aligned x and dy; right for all others.
// Result     deterministic; the order of the sums is the same on every device.
// Index      64-bit: rows * channels may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

// Two tensors of four rows each: as many loads in flight as stats has.
constexpr Tiling kTiling = {kReduceLanes, 4, kReduceBlocks};
static_assert(kFlushRows % kTiling.rows_at_once == 0, "a flush follows a whole number of loads");

struct BackwardReduceParams {
  const float *x;
  const float *dy;
  int64_t rows;
  int64_t channels;
  const double *saved;
  Rows exchange;
  int rank;
  double signature;
  float *gamma_grad;
  float *beta_grad;
  Workspace workspace;
};

struct Sums {
  Quad dy;
  Quad products;  // of dy and x - mean
};

// Adds up to kRows rows.
template <bool kVector>
__device__ __forceinline__ void add_rows(Sums &sums, const Quad &mean, const float *x, const float *dy, int64_t stride,
                                         int rows, int width) {
  constexpr int kRows = kTiling.rows_at_once;
  Quad x_quads[kRows];
  Quad dy_quads[kRows];
  load_rows<kVector, Keep>(x_quads, x, stride, rows, width);
  load_rows<kVector, Keep>(dy_quads, dy, stride, rows, width);
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (k < rows) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        sums.dy.v[j] += dy_quads[k].v[j];
        sums.products.v[j] = fmaf(dy_quads[k].v[j], x_quads[k].v[j] - mean.v[j], sums.products.v[j]);
      }
    }
  }
}

// Sums of dy and of dy * (x - high part of the mean) over a thread's rows.
template <bool kVector>
__device__ __forceinline__ Partial accumulate(const BackwardReduceParams &p, const ThreadTile &tile) {
  constexpr int kRows = kTiling.rows_at_once;
  const int64_t stride = blockDim.y * p.channels;
  const int64_t start = tile.first * p.channels + tile.channel;
  const float *x = p.x + start;
  const float *dy = p.dy + start;
  Quad mean = {};
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (j < tile.width) mean.v[j] = static_cast<float>(p.saved[1 + tile.channel + j]);
  }
  Partial total = {};
  for (int64_t left = tile.count; left > 0; left -= kFlushRows) {
    const int rows = left < kFlushRows ? static_cast<int>(left) : kFlushRows;
    Sums sums = {};
    int done = 0;
    for (; done + kRows <= rows; done += kRows, x += kRows * stride, dy += kRows * stride) {
      add_rows<kVector>(sums, mean, x, dy, stride, kRows, tile.width);
    }
    if (done < rows) add_rows<kVector>(sums, mean, x, dy, stride, rows - done, tile.width);
    total.rows += rows;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      total.first[j] += sums.dy.v[j];
      total.second[j] += sums.products.v[j];
    }
  }
  return total;
}

// From sums of dy * (x - high part of the mean) to sums of dy * xhat.
__device__ __forceinline__ void finish_sums(const BackwardReduceParams &p, const ThreadTile &tile, Partial &sums) {
  // Sums of nothing are 0, whatever 1 / sigma is.
  if (sums.rows == 0) return;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (j < tile.width) {
      const double mean = p.saved[1 + tile.channel + j];
      const double inverse_sigma = p.saved[1 + p.channels + tile.channel + j];
      sums.second[j] = inverse_sigma * (sums.second[j] - (mean - static_cast<float>(mean)) * sums.first[j]);
    }
  }
}

template <bool kVector>
__global__ void __launch_bounds__(kThreads, 2) backward_reduce_kernel(const __grid_constant__ BackwardReduceParams p) {
  const ThreadTile tile(p.rows, p.channels);
  Partial sums = accumulate<kVector>(p, tile);
  if (!reduce_tile<AddSums>(sums, tile, p.rows, p.channels, p.workspace)) return;
  if (threadIdx.y == 0) {
    finish_sums(p, tile, sums);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (j < tile.width) {
        if (p.beta_grad) p.beta_grad[tile.channel + j] = static_cast<float>(sums.first[j]);
        if (p.gamma_grad) p.gamma_grad[tile.channel + j] = static_cast<float>(sums.second[j]);
      }
    }
  }
  if (p.exchange.address) write_rows(p.exchange, p.rank, tile, sums, {p.signature});
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_backward_reduce(const syncbn_backward_reduce_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  BackwardReduceParams p;
  p.x = pointer<const float>(args->x);
  p.dy = pointer<const float>(args->dy);
  p.rows = args->outer;
  p.channels = args->channels;
  p.saved = pointer<const double>(args->saved);
  p.exchange = {pointer<double>(args->rows), kBackwardRowHead, args->channels, args->world_size};
  p.rank = args->rank;
  p.signature = args->signature;
  p.gamma_grad = pointer<float>(args->gamma_grad);
  p.beta_grad = pointer<float>(args->beta_grad);
  p.workspace = workspace_at(args->workspace);
  const bool aligned = rows_are_aligned(args->x, args->channels) && rows_are_aligned(args->dy, args->channels);
  const auto kernel = aligned ? backward_reduce_kernel<true> : backward_reduce_kernel<false>;
  return enqueue("backward_reduce", kernel, launch_shape(kTiling, p.rows, p.channels), args->stream, p);
}
