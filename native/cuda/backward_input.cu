// dx = gamma / sigma * (dy - sum_dy / n - xhat * sum_dy_xhat / n), xhat = (x - mean) / sigma, the sums and n over all
// ranks; after an inference forward dx = gamma / sigma * dy.
//
// in   x         [rows, channels] float32 row-major; training only
//      dy        [rows, channels] float32
//      gamma     [channels] float32, or null: 1
//      saved     [1 + 2 * channels] float64: n, mean, 1 / sigma, from normalize
//      exchange  training: [world_size][1 + 2 * channels] float64, what backward_reduce wrote, summed over the ranks
// out  dx        [rows, channels] float32; may be dy
//
// Algorithm  Every block adds up the sums for its channels in float64 in the order of the ranks, and works on
//            elements in float32: dx = scale * (((dy - mean_dy) + slope * (x - mean)) + rest), where mean and mean_dy
//            are rounded to float32 and rest is what that leaves, so that dy - mean_dy and x - mean lose no digits.
//            One thread of the launch reports a row of another step.
// Launch     block (1 .. 32, 256 .. 8), grid (channels / 128, row blocks), at most 396 blocks up to 50688 channels.
// Traffic    reads x (training) and dy once, as their last use; writes dx once, left in the cache for the layer before.
// Designed   for channels >= 32 and a multiple of 4 at 16-byte aligned tensors; right for all others.
// Result     deterministic.
// Index      64-bit: rows * channels may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

// Three blocks for each multiprocessor of an H100: one wave, since every block adds up the rows first.
constexpr Tiling kTiling = {32, 3, 396};
constexpr int kTileChannels = kTiling.max_lanes * kWidth;

struct BackwardInputParams {
  const float *x;
  const float *dy;
  float *dx;
  int64_t rows;
  int64_t channels;
  const float *gamma;
  const double *saved;
  // Training only.
  Rows exchange;
  double signature;
  syncbn_control *control;
};

struct Transform {
  float scale[kTileChannels];
  // Training only.
  float mean[kTileChannels];
  float mean_dy[kTileChannels];
  float slope[kTileChannels];
  float rest[kTileChannels];
};

template <bool kTraining>
__device__ __forceinline__ void prepare_channel(const BackwardInputParams &p, int64_t channel, int slot,
                                                Transform &transform) {
  const double inverse_sigma = p.saved[1 + p.channels + channel];
  transform.scale[slot] = static_cast<float>(inverse_sigma * (p.gamma ? p.gamma[channel] : 1.0f));
  if constexpr (kTraining) {
    double sum_dy = 0;
    double sum_dy_xhat = 0;
    for (int rank = 0; rank < p.exchange.world_size; ++rank) {
      sum_dy += p.exchange.first(rank)[channel];
      sum_dy_xhat += p.exchange.second(rank)[channel];
    }
    const double count = p.saved[0];
    const double mean = p.saved[1 + channel];
    const double mean_dy = sum_dy / count;
    const double slope = -inverse_sigma * (sum_dy_xhat / count);
    const float rounded_mean = static_cast<float>(mean);
    const float rounded_mean_dy = static_cast<float>(mean_dy);
    transform.mean[slot] = rounded_mean;
    transform.mean_dy[slot] = rounded_mean_dy;
    transform.slope[slot] = static_cast<float>(slope);
    transform.rest[slot] = static_cast<float>(-(mean_dy - rounded_mean_dy) - slope * (mean - rounded_mean));
  }
}

// Of a thread's channels.
struct Coefficients {
  Quad scale, mean, mean_dy, slope, rest;
};

// Up to kRows rows of a thread, from `offset` on.
template <bool kVector, bool kTraining>
__device__ __forceinline__ void transform_rows(const BackwardInputParams &p, const Coefficients &c, int64_t offset,
                                               int64_t stride, int rows, int width) {
  constexpr int kRows = kTiling.rows_at_once;
  Quad x[kRows];
  Quad dy[kRows];
  if constexpr (kTraining) load_rows<kVector, LastUse>(x, p.x + offset, stride, rows, width);
  load_rows<kVector, LastUse>(dy, p.dy + offset, stride, rows, width);
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (k < rows) {
      Quad dx;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float centered = dy[k].v[j];
        if constexpr (kTraining) {
          centered = fmaf(c.slope.v[j], x[k].v[j] - c.mean.v[j], centered - c.mean_dy.v[j]) + c.rest.v[j];
        }
        dx.v[j] = c.scale.v[j] * centered;
      }
      store_quad<kVector>(p.dx + offset + k * stride, dx, width);
    }
  }
}

template <bool kVector, bool kTraining>
__device__ __forceinline__ void transform_tile(const BackwardInputParams &p, const Transform &transform) {
  constexpr int kRows = kTiling.rows_at_once;
  const ThreadTile tile(p.rows, p.channels);
  Coefficients c;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const unsigned slot = threadIdx.x * kWidth + j;
    c.scale.v[j] = transform.scale[slot];
    if constexpr (kTraining) {
      c.mean.v[j] = transform.mean[slot];
      c.mean_dy.v[j] = transform.mean_dy[slot];
      c.slope.v[j] = transform.slope[slot];
      c.rest.v[j] = transform.rest[slot];
    }
  }
  const int64_t stride = blockDim.y * p.channels;
  int64_t offset = tile.first * p.channels + tile.channel;
  int64_t left = tile.count;
  for (; left >= kRows; left -= kRows, offset += kRows * stride) {
    transform_rows<kVector, kTraining>(p, c, offset, stride, kRows, tile.width);
  }
  if (left > 0) transform_rows<kVector, kTraining>(p, c, offset, stride, static_cast<int>(left), tile.width);
}

template <bool kVector, bool kTraining>
__global__ void __launch_bounds__(kThreads, 3) backward_input_kernel(const __grid_constant__ BackwardInputParams p) {
  __shared__ Transform transform;
  const int slot = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int64_t tile_channels = blockDim.x * kWidth;
  const int64_t channel = blockIdx.x * tile_channels + slot;
  if constexpr (kTraining) {
    // This thread has no channel to prepare: a block has at least twice as many threads as channels.
    if (blockIdx.x == 0 && blockIdx.y == 0 && slot == kThreads - 1) step_is_valid(p.exchange, p.signature, p.control);
  }
  if (slot < tile_channels && channel < p.channels) prepare_channel<kTraining>(p, channel, slot, transform);
  __syncthreads();
  transform_tile<kVector, kTraining>(p, transform);
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_backward_input(const syncbn_backward_input_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  BackwardInputParams p;
  p.x = pointer<const float>(args->x);
  p.dy = pointer<const float>(args->dy);
  p.dx = pointer<float>(args->dx);
  p.rows = args->outer;
  p.channels = args->channels;
  p.gamma = pointer<const float>(args->gamma);
  p.saved = pointer<const double>(args->saved);
  p.exchange = {pointer<double>(args->rows), kBackwardRowHead, args->channels, args->world_size};
  p.signature = args->signature;
  p.control = pointer<syncbn_control>(args->control);
  const bool aligned = rows_are_aligned(args->x, args->channels) && rows_are_aligned(args->dy, args->channels) &&
                       rows_are_aligned(args->dx, args->channels);
  const auto training = aligned ? backward_input_kernel<true, true> : backward_input_kernel<false, true>;
  const auto inference = aligned ? backward_input_kernel<true, false> : backward_input_kernel<false, false>;
  return enqueue("backward_input", args->training ? training : inference, launch_shape(kTiling, p.rows, p.channels),
                 args->stream, p);
}
