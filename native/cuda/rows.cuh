// How are the rows laid out that the all-reduce exchanges, and what do all of them together say?
//
// A row is [head..., first[channels], second[channels]] in float64, and in forward perhaps a third part, the counts;
// one row a rank. syncbn.h says what each part holds. All ranks hold the same rows, and merge them in the order of the
// ranks: the same bits everywhere.
#ifndef SYNCBN_ROWS_CUH
#define SYNCBN_ROWS_CUH

#include "reduce.cuh"
#include "syncbn.h"

namespace syncbn {

struct Rows {
  double *address;
  int64_t length;
  int64_t head;  // float64 before the parts
  int64_t channels;
  bool channel_counts;  // whether there is a third part
  int world_size;
  double known_count =
      -1;  // of each channel, where the head is not to be read: another tile may still have to write it

  __device__ __forceinline__ double *row(int rank) const { return address + rank * length; }
  __device__ __forceinline__ double *part(int i, int rank) const { return row(rank) + head + i * channels; }
  // Of a forward row.
  __device__ __forceinline__ double count(int rank, int64_t channel) const {
    if (known_count >= 0) return known_count;
    return channel_counts ? part(2, rank)[channel] : row(rank)[1];
  }
};

// Fills this tile's part of this rank's row, and zeros the same part of the other rows. By one whole block a tile,
// whose threads with turn 0 bring the result. head: the values before the parts, written by the first tile.
template <int kHead, typename P>
__device__ __forceinline__ void write_rows(const Rows &rows, int rank, const Share &share, const P &result,
                                           const double (&head)[kHead]) {
  const bool writes_head = blockIdx.x == 0 && share.lane == 0;
  if (!share.exists) return;
  for (int r = static_cast<int>(share.turn); r < rows.world_size; r += blockDim.y) {
    if (r == rank) continue;
    for (int c = 0; c < P::kChannels; ++c) {
      rows.part(0, r)[share.channel + c] = rows.part(1, r)[share.channel + c] = 0;
      if (rows.channel_counts) rows.part(2, r)[share.channel + c] = 0;
    }
    if (writes_head) {
      for (int i = 0; i < kHead; ++i) rows.row(r)[i] = 0;
    }
  }
  if (share.turn != 0) return;
#pragma unroll
  for (int c = 0; c < P::kChannels; ++c) {
    rows.part(0, rank)[share.channel + c] = result.value(0, c);
    rows.part(1, rank)[share.channel + c] = result.value(1, c);
    if (rows.channel_counts) rows.part(2, rank)[share.channel + c] = result.count(c);
  }
  if (writes_head) {
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
// The same bits in every variant of a kernel, since ranks may run different ones and their states must agree.
__device__ __forceinline__ Statistics merge_statistics(const Rows &rows, int64_t channel) {
  double count = 0;
  double origin = 0;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double n = rows.count(rank, channel);
    if (count == 0 && n > 0) origin = rows.part(0, rank)[channel];
    count += n;
  }
  if (count == 0) return {0, 0, 0};
  double shift = 0;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double n = rows.count(rank, channel);
    if (n > 0) shift = fused(n, rows.part(0, rank)[channel] - origin, shift);
  }
  const double mean = origin + shift / count;
  double m2 = 0;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double n = rows.count(rank, channel);
    const double delta = rows.part(0, rank)[channel] - mean;
    if (n > 0) m2 += fused(n, delta * delta, rows.part(1, rank)[channel]);
  }
  const double variance = m2 / count;
  return {count, mean, variance < 0 ? 0 : variance};
}

// Whether the step that these rows belong to may change anything: the collective was not given up, and every rank was
// in the same step, as in all steps before. Reports the first rank that was not. By one thread of a launch.
__device__ __forceinline__ bool step_is_valid(const Rows &rows, double signature, syncbn_control *control) {
  if (load_acquire_system(&control->aborted) != 0 || load_acquire_system(&control->mismatch) != 0) return false;
  for (int rank = 0; rank < rows.world_size; ++rank) {
    const double found = rows.row(rank)[0];
    if (found == signature) continue;
    control->expected = signature;
    control->found = found;
    store_release_system(&control->mismatch, static_cast<uint32_t>(rank) + 1);
    return false;
  }
  return true;
}

}  // namespace syncbn

#endif
