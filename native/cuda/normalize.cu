// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta; in training with the statistics of all ranks, and then the
// moving statistics take a step towards them.
//
// in   x                [rows, channels] float32 row-major
//      gamma, beta      [channels] float32, or null: 1 and 0
//      exchange         training: [world_size][2 + 2 * channels] float64, what stats wrote, summed over the ranks
// out  y                [rows, channels] float32; may be x
//      saved            [1 + 2 * channels] float64, or null: count of all ranks, mean, 1 / sqrt(variance + epsilon)
// i/o  moving_mean, moving_variance  [channels] float32; read only outside training
//      workspace        training: the statistics of the batch, for the block that updates the moving ones
//
// Algorithm  Every block merges the rows for its channels in float64, and works on elements in float32: the mean is a
//            pair of floats, so that x - mean is as good at |mean| = 1e4 sigma. The last block of the launch updates
//            the moving statistics, when no other block needs the old ones any more: in float64, rounded once; and only
//            if every row is of this step, the step was not aborted, and the batch has an element.
// No data    A batch without any element has mean 0 and variance 0. In inference the count in `saved` is 0.
// Launch     block (1 .. 32, 256 .. 8), grid (channels / 128, row blocks), at most 396 blocks up to 50688 channels.
// Traffic    reads x once, as its last use in the forward pass; writes y once, left in the cache for the next layer.
// Designed   for channels >= 32 and a multiple of 4 at 16-byte aligned x and y; right for all others.
// Result     deterministic.
// Index      64-bit: rows * channels may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

// Three blocks for each multiprocessor of an H100: one wave, since every block merges the rows first.
constexpr Tiling kTiling = {32, 4, 396};
constexpr int kTileChannels = kTiling.max_lanes * kWidth;

struct NormalizeParams {
  const float *x;
  float *y;
  int64_t rows;
  int64_t channels;
  const float *gamma;
  const float *beta;
  float *moving_mean;
  float *moving_variance;
  double *saved;
  double epsilon;
  // Training only.
  bool training;
  Rows exchange;
  double signature;
  double decay;
  syncbn_control *control;
  Workspace workspace;
};

// y = (x - mean) * scale + offset, the low part of the mean folded into the offset.
struct Transform {
  float mean[kTileChannels];
  float scale[kTileChannels];
  float offset[kTileChannels];
};

// The transform of one of the tile's channels; the tile's first block also hands on what it found.
__device__ __forceinline__ void prepare_channel(const NormalizeParams &p, int64_t channel, int slot,
                                                Transform &transform) {
  const Statistics statistics = p.training ? merge_statistics(p.exchange, channel)
                                           : Statistics{0, p.moving_mean[channel], p.moving_variance[channel]};
  const double inverse_sigma = 1.0 / sqrt(statistics.variance + p.epsilon);
  const double scale = inverse_sigma * (p.gamma ? p.gamma[channel] : 1.0f);
  const float mean = static_cast<float>(statistics.mean);
  transform.mean[slot] = mean;
  transform.scale[slot] = static_cast<float>(scale);
  transform.offset[slot] = static_cast<float>((p.beta ? p.beta[channel] : 0.0f) - (statistics.mean - mean) * scale);
  if (blockIdx.y != 0) return;
  if (p.saved) {
    if (channel == 0) p.saved[0] = statistics.count;
    p.saved[1 + channel] = statistics.mean;
    p.saved[1 + p.channels + channel] = inverse_sigma;
  }
  if (p.training) {
    p.workspace.values[channel] = statistics.mean;
    p.workspace.values[p.channels + channel] = statistics.variance;
  }
}

// Up to kRows rows of a thread.
template <bool kVector>
__device__ __forceinline__ void transform_rows(const Quad &mean, const Quad &scale, const Quad &offset, const float *x,
                                               float *y, int64_t stride, int rows, int width) {
  constexpr int kRows = kTiling.rows_at_once;
  Quad quads[kRows];
  load_rows<kVector, LastUse>(quads, x, stride, rows, width);
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (k < rows) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        quads[k].v[j] = fmaf(quads[k].v[j] - mean.v[j], scale.v[j], offset.v[j]);
      }
      store_quad<kVector>(y + k * stride, quads[k], width);
    }
  }
}

template <bool kVector>
__device__ __forceinline__ void transform_tile(const NormalizeParams &p, const Transform &transform) {
  constexpr int kRows = kTiling.rows_at_once;
  const ThreadTile tile(p.rows, p.channels);
  Quad mean, scale, offset;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const unsigned slot = threadIdx.x * kWidth + j;
    mean.v[j] = transform.mean[slot];
    scale.v[j] = transform.scale[slot];
    offset.v[j] = transform.offset[slot];
  }
  const int64_t stride = blockDim.y * p.channels;
  const int64_t start = tile.first * p.channels + tile.channel;
  const float *x = p.x + start;
  float *y = p.y + start;
  int64_t left = tile.count;
  for (; left >= kRows; left -= kRows, x += kRows * stride, y += kRows * stride) {
    transform_rows<kVector>(mean, scale, offset, x, y, stride, kRows, tile.width);
  }
  if (left > 0) transform_rows<kVector>(mean, scale, offset, x, y, stride, static_cast<int>(left), tile.width);
}

// By one block.
__device__ __forceinline__ void move_towards(float *moving, const double *batch, const NormalizeParams &p) {
  for (int64_t channel = threadIdx.y * blockDim.x + threadIdx.x; channel < p.channels; channel += kThreads) {
    const double old = moving[channel];
    moving[channel] = static_cast<float>(old + (__ldcg(batch + channel) - old) * p.decay);
  }
}

// By the last block: all channels, since the step counts for all of them or for none.
__device__ __forceinline__ void update_moving_statistics(const NormalizeParams &p) {
  __shared__ bool valid;
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    double count = 0;
    for (int rank = 0; rank < p.exchange.world_size; ++rank) count += p.exchange.row(rank)[1];
    valid = step_is_valid(p.exchange, p.signature, p.control) && count > 0;
  }
  __syncthreads();
  if (!valid) return;
  move_towards(p.moving_mean, p.workspace.values, p);
  move_towards(p.moving_variance, p.workspace.values + p.channels, p);
}

template <bool kVector>
__global__ void __launch_bounds__(kThreads, 3) normalize_kernel(const __grid_constant__ NormalizeParams p) {
  __shared__ Transform transform;
  const int slot = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int64_t tile_channels = blockDim.x * kWidth;
  const int64_t channel = blockIdx.x * tile_channels + slot;
  if (slot < tile_channels && channel < p.channels) prepare_channel(p, channel, slot, transform);
  __syncthreads();
  transform_tile<kVector>(p, transform);
  if (p.training && is_last_block(p.workspace.tickets + kNormalizeTicket, gridDim.x * gridDim.y)) {
    update_moving_statistics(p);
  }
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_normalize(const syncbn_normalize_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  NormalizeParams p = {};
  p.x = pointer<const float>(args->x);
  p.y = pointer<float>(args->y);
  p.rows = args->outer;
  p.channels = args->channels;
  p.gamma = pointer<const float>(args->gamma);
  p.beta = pointer<const float>(args->beta);
  p.moving_mean = pointer<float>(args->moving_mean);
  p.moving_variance = pointer<float>(args->moving_variance);
  p.saved = pointer<double>(args->saved);
  p.epsilon = args->epsilon;
  p.training = args->training != 0;
  p.exchange = {pointer<double>(args->rows), kForwardRowHead, args->channels, args->world_size};
  p.signature = args->signature;
  p.decay = args->decay;
  p.control = pointer<syncbn_control>(args->control);
  p.workspace = workspace_at(args->workspace);
  const bool aligned = rows_are_aligned(args->x, args->channels) && rows_are_aligned(args->y, args->channels);
  const auto kernel = aligned ? normalize_kernel<true> : normalize_kernel<false>;
  return enqueue("normalize", kernel, launch_shape(kTiling, p.rows, p.channels), args->stream, p);
}
