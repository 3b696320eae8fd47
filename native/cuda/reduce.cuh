// How do the threads of a launch reduce to two float64 per channel, the same bits every run?
//
// In a tree that the shape alone fixes: the rows of a thread, then the threads of a block (shared memory), then the
// blocks of a tile. The blocks leave partial results in the workspace and draw a ticket; whoever draws a tile's last
// one merges the partial results in the order of the blocks, whatever the order in which they came. No atomic adds a
// float.
#ifndef SYNCBN_REDUCE_CUH
#define SYNCBN_REDUCE_CUH

#include "tile.cuh"

namespace syncbn {

// Tiles of 32 channels: a row of a tile is one 128-byte line, and even 64 channels have two blocks that merge. More
// lanes would leave the merge, which is the tail of the launch, to fewer blocks. 264 blocks are two for each
// multiprocessor of an H100: one wave.
constexpr int kReduceLanes = 8;
constexpr int64_t kReduceBlocks = 264;

// Rows that a thread adds up in float32 before they go into its float64: bounds the rounding errors of the sums.
constexpr int kFlushRows = 64;

// The workspace: one ticket for each tile of a reduction of several blocks a tile, and one for the normalization; then
// float64 partial results [row blocks][2][channels] of a reduction, or the normalization's statistics [2][channels].
// The tickets come first and take the same space at any number of channels, so that layers may share a workspace. Each
// is 0 whenever no kernel runs.
constexpr int64_t kTickets = 256;
constexpr int64_t kNormalizeTicket = kTickets - 1;
static_assert(kReduceBlocks / 2 <= kNormalizeTicket, "tiles that have two blocks or more must find a ticket each");

struct Workspace {
  uint32_t *tickets;
  double *values;
};

inline Workspace workspace_at(uint64_t address) {
  return {reinterpret_cast<uint32_t *>(address), reinterpret_cast<double *>(address + kTickets * sizeof(uint32_t))};
}

inline int64_t workspace_bytes(int64_t channels) {
  const Tiling tiling = {kReduceLanes, 1, kReduceBlocks};
  return kTickets * static_cast<int64_t>(sizeof(uint32_t)) + max_row_blocks(tiling, channels) * 2 * channels * 8;
}

// Two float64 for each of a thread's channels, and the number of rows that they stand for.
struct Partial {
  double rows;
  double first[kWidth];
  double second[kWidth];
};

// Per channel: first is the mean, second the sum of squared deviations from it (Chan, Golub, LeVeque).
struct MergeMoments {
  static __device__ __forceinline__ void merge(Partial &into, const Partial &from) {
    if (from.rows == 0) return;
    const double rows = into.rows + from.rows;
    const double weight = from.rows / rows;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const double delta = from.first[j] - into.first[j];
      into.first[j] += delta * weight;
      into.second[j] += from.second[j] + delta * delta * (into.rows * weight);
    }
    into.rows = rows;
  }
};

// Per channel: two sums.
struct AddSums {
  static __device__ __forceinline__ void merge(Partial &into, const Partial &from) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      into.first[j] += from.first[j];
      into.second[j] += from.second[j];
    }
    into.rows += from.rows;
  }
};

// Merges the partial results of the threads with the same threadIdx.x; those with threadIdx.y = 0 return the result.
// blockDim.y is a power of two. Called twice, it needs a __syncthreads() between.
template <typename Merge>
__device__ __forceinline__ void reduce_block(Partial &partial) {
  __shared__ double rows[kThreads];
  __shared__ double first[kWidth][kThreads];
  __shared__ double second[kWidth][kThreads];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    // A thread writes once, in the round that it leaves after; so one barrier a round is enough.
    if (threadIdx.y >= half && threadIdx.y < 2 * half) {
      rows[thread] = partial.rows;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        first[j][thread] = partial.first[j];
        second[j][thread] = partial.second[j];
      }
    }
    __syncthreads();
    if (threadIdx.y < half) {
      const unsigned other = thread + half * blockDim.x;
      Partial from;
      from.rows = rows[other];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        from.first[j] = first[j][other];
        from.second[j] = second[j][other];
      }
      Merge::merge(partial, from);
    }
  }
}

// Whether this block is the last of `blocks` to come here, and so sees all that the others wrote before they came. The
// same answer in all threads; leaves the ticket at 0. The fences of the one thread that draws, between the barriers,
// order the accesses of its whole block: those before against the draw, and the draw against those after.
__device__ __forceinline__ bool is_last_block(uint32_t *ticket, unsigned blocks) {
  __shared__ uint32_t drawn;
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    __threadfence();
    drawn = atomicInc(ticket, blocks - 1);
    __threadfence();
  }
  __syncthreads();
  return drawn == blocks - 1;
}

// Merges the partial results of all blocks of this tile. True in the threads of one block a tile; there, those with
// threadIdx.y = 0 return the result.
template <typename Merge>
__device__ __forceinline__ bool reduce_tile(Partial &partial, const ThreadTile &tile, int64_t rows, int64_t channels,
                                            const Workspace &workspace) {
  reduce_block<Merge>(partial);
  const unsigned blocks = gridDim.y;
  if (blocks == 1) return true;

  if (threadIdx.y == 0) {
    double *values = workspace.values + 2 * channels * blockIdx.y + tile.channel;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (j < tile.width) {
        values[j] = partial.first[j];
        values[channels + j] = partial.second[j];
      }
    }
  }
  if (!is_last_block(workspace.tickets + blockIdx.x, blocks)) return false;

  partial = Partial{};
  for (unsigned block = threadIdx.y; block < blocks; block += blockDim.y) {
    const double *values = workspace.values + 2 * channels * block + tile.channel;
    Partial from;
    from.rows = static_cast<double>(rows_of_block(rows, block, blocks).count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      from.first[j] = j < tile.width ? __ldcg(values + j) : 0;
      from.second[j] = j < tile.width ? __ldcg(values + channels + j) : 0;
    }
    Merge::merge(partial, from);
  }
  reduce_block<Merge>(partial);
  return true;
}

}  // namespace syncbn

#endif
