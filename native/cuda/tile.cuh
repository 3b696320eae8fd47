// Which channels and rows does a thread work on, and how does it load and store them?
//
// A channels-last tensor is a row-major matrix [rows, channels]. A block is 256 threads of shape (lanes, 256 / lanes);
// each lane owns four adjacent channels, so that a float32 row is read 16 bytes a thread. blockIdx.x is the tile of
// channels, blockIdx.y the block of rows. Everything here follows from the shape alone, never from the device: the same
// shape gives the same sums on every GPU.
#ifndef SYNCBN_TILE_CUH
#define SYNCBN_TILE_CUH

#include "device.cuh"

namespace syncbn {

constexpr int kThreads = 256;
constexpr int kWidth = 4;  // channels of a thread

// How a kernel divides a matrix among blocks.
struct Tiling {
  int max_lanes;       // a power of two; a tile is at most max_lanes * kWidth channels wide
  int rows_at_once;    // loads that a thread has in flight for each tensor
  int64_t max_blocks;  // of a launch that has more than one block for some tile
};

inline int lanes(const Tiling &tiling, int64_t channels) {
  int lanes = 1;
  while (lanes < tiling.max_lanes && lanes * kWidth < channels) lanes *= 2;
  return lanes;
}

inline int64_t tile_count(const Tiling &tiling, int64_t channels) {
  const int64_t tile = lanes(tiling, channels) * kWidth;
  return (channels + tile - 1) / tile;
}

// The most blocks of rows that any number of rows gets.
inline int64_t max_row_blocks(const Tiling &tiling, int64_t channels) {
  const int64_t blocks = tiling.max_blocks / tile_count(tiling, channels);
  return blocks > 1 ? blocks : 1;
}

struct LaunchShape {
  dim3 grid;
  dim3 block;
};

// At least one block, also without rows: the statistics and the state are written all the same.
inline LaunchShape launch_shape(const Tiling &tiling, int64_t rows, int64_t channels) {
  const int x = lanes(tiling, channels);
  const int64_t rows_of_a_step = static_cast<int64_t>(kThreads / x) * tiling.rows_at_once;
  const int64_t steps = (rows + rows_of_a_step - 1) / rows_of_a_step;
  const int64_t limit = max_row_blocks(tiling, channels);
  const int64_t row_blocks = steps < 1 ? 1 : steps < limit ? steps : limit;
  return {dim3(static_cast<unsigned>(tile_count(tiling, channels)), static_cast<unsigned>(row_blocks)),
          dim3(static_cast<unsigned>(x), static_cast<unsigned>(kThreads / x))};
}

// Whether the rows of a tensor start at multiples of 16 bytes, so that Quads can be loaded and stored whole.
inline bool rows_are_aligned(uint64_t address, int64_t channels) { return address % 16 == 0 && channels % kWidth == 0; }

// A block's share of the rows: consecutive, and equal among blocks to within one row.
struct RowRange {
  int64_t begin;
  int64_t count;
};

__device__ __forceinline__ RowRange rows_of_block(int64_t rows, int64_t block, int64_t blocks) {
  const int64_t share = rows / blocks;
  const int64_t longer = rows % blocks;  // blocks that have one row more
  return {share * block + (block < longer ? block : longer), share + (block < longer ? 1 : 0)};
}

// A thread's share: its rows are first, first + blockDim.y, ...
struct ThreadTile {
  int64_t channel;  // the first of its kWidth
  int width;        // how many of them exist; the last tile may be wider than the tensor
  int64_t first;
  int64_t count;  // of its rows; 0 where width is 0

  __device__ __forceinline__ ThreadTile(int64_t rows, int64_t channels) {
    channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kWidth;
    const int64_t left = channels - channel;
    width = left >= kWidth ? kWidth : left > 0 ? static_cast<int>(left) : 0;
    const RowRange range = rows_of_block(rows, blockIdx.y, gridDim.y);
    first = range.begin + threadIdx.y;
    count = width > 0 ? (range.count + blockDim.y - 1 - threadIdx.y) / blockDim.y : 0;
  }
};

// The values of a thread's channels in one row.
struct Quad {
  float v[kWidth];
};

// A load that leaves the line in the caches, for data that a later kernel of the step reads again.
struct Keep {
  static __device__ __forceinline__ float4 load(const float4 *address) { return *address; }
  static __device__ __forceinline__ float load(const float *address) { return *address; }
};

// A load of data that nothing reads again soon: its line is the first to leave the caches. Not the read-only path,
// since an output may be the input's memory.
struct LastUse {
  static __device__ __forceinline__ float4 load(const float4 *address) { return __ldcs(address); }
  static __device__ __forceinline__ float load(const float *address) { return __ldcs(address); }
};

template <bool kVector, typename Cache>
__device__ __forceinline__ Quad load_quad(const float *address, int width) {
  if constexpr (kVector) {
    const float4 q = Cache::load(reinterpret_cast<const float4 *>(address));
    return {{q.x, q.y, q.z, q.w}};
  } else {
    Quad quad;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) quad.v[j] = j < width ? Cache::load(address + j) : 0.0f;
    return quad;
  }
}

template <bool kVector>
__device__ __forceinline__ void store_quad(float *address, const Quad &quad, int width) {
  if constexpr (kVector) {
    *reinterpret_cast<float4 *>(address) = make_float4(quad.v[0], quad.v[1], quad.v[2], quad.v[3]);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (j < width) address[j] = quad.v[j];
    }
  }
}

// The first `rows` of kRows rows, all loads issued before the first is waited for; the others are 0. Callers pass kRows
// itself wherever they can: the loads are then unconditional.
template <bool kVector, typename Cache, int kRows>
__device__ __forceinline__ void load_rows(Quad (&quads)[kRows], const float *address, int64_t stride, int rows,
                                          int width) {
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    quads[k] = k < rows ? load_quad<kVector, Cache>(address + k * stride, width) : Quad{};
  }
}

}  // namespace syncbn

#endif
