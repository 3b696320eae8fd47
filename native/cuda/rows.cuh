// How are the rows laid out that the all-reduce exchanges, and what do all of them together say?
//
// A row is [head..., first[channels], second[channels]] in float64, one row a rank; syncbn.h says what each part holds.
// All ranks hold the same rows, and merge them in the order of the ranks: the same bits everywhere.
#ifndef SYNCBN_ROWS_CUH
#define SYNCBN_ROWS_CUH

#include "reduce.cuh"
#include "syncbn.h"

namespace syncbn {

__host__ __device__ __forceinline__ int64_t row_length(int64_t head, int64_t channels) { return head + 2 * channels; }

struct Rows {
  double *address;
  int64_t head;  // float64 before the two parts
  int64_t channels;
  int world_size;

  __device__ __forceinline__ double *row(int rank) const { return address + rank * row_length(head, channels); }
  __device__ __forceinline__ double *first(int rank) const { return row(rank) + head; }
  __device__ __forceinline__ double *second(int rank) const { return row(rank) + head + channels; }
};

// Fills this tile's part of this rank's row, and zeros the same part of the other rows. By one whole block a tile,
// whose threads with threadIdx.y = 0 bring the result. head: the values before the two parts, written by the first
// tile.
template <int kHead>
__device__ __forceinline__ void write_rows(const Rows &rows, int rank, const ThreadTile &tile, const Partial &result,
                                           const double (&head)[kHead]) {
  for (int r = static_cast<int>(threadIdx.y); r < rows.world_size; r += blockDim.y) {
    if (r == rank) continue;
    double *first = rows.first(r) + tile.channel;
    double *second = rows.second(r) + tile.channel;
    for (int j = 0; j < tile.width; ++j) first[j] = second[j] = 0;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      for (int i = 0; i < kHead; ++i) rows.row(r)[i] = 0;
    }
  }
  if (threadIdx.y != 0) return;
  double *first = rows.first(rank) + tile.channel;
  double *second = rows.second(rank) + tile.channel;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (j < tile.width) {
      first[j] = result.first[j];
      second[j] = result.second[j];
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < kHead; ++i) rows.row(rank)[i] = head[i];
  }
}

struct Statistics {
  double count;
  double mean;
  double variance;  // biased; never negative, NaN where the data says so
};

// The statistics of all ranks' elements of one channel, from forward rows; zeros where there are none. The mean is
// found relative to the first rank that has elements: what is added is then small, and equal means give that very mean.
__device__ __forceinline__ Statistics merge_statistics(const Rows &rows, int64_t channel) {
  double count = 0;
  double origin = 0;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double n = rows.row(rank)[1];
    if (count == 0 && n > 0) origin = rows.first(rank)[channel];
    count += n;
  }
  if (count == 0) return {0, 0, 0};
  double shift = 0;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double n = rows.row(rank)[1];
    if (n > 0) shift += n * (rows.first(rank)[channel] - origin);
  }
  const double mean = origin + shift / count;
  double m2 = 0;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double n = rows.row(rank)[1];
    const double delta = rows.first(rank)[channel] - mean;
    if (n > 0) m2 += rows.second(rank)[channel] + n * (delta * delta);
  }
  const double variance = m2 / count;
  return {count, mean, variance < 0 ? 0 : variance};
}

// Whether the step that these rows belong to may change anything: the collective was not given up, and every rank was
// in the same step. Reports the first rank that was not, unless an earlier step has. By one thread of a launch.
__device__ __forceinline__ bool step_is_valid(const Rows &rows, double signature, syncbn_control *control) {
  if (load_acquire_system(&control->aborted) != 0) return false;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double found = rows.row(rank)[0];
    if (found == signature) continue;
    if (load_acquire_system(&control->mismatch) == 0) {
      control->expected = signature;
      control->found = found;
      store_release_system(&control->mismatch, static_cast<uint32_t>(rank) + 1);
    }
    return false;
  }
  return true;
}

}  // namespace syncbn

#endif
