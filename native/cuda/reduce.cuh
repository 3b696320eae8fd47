// How do the threads of a launch reduce to a few float64 per channel, the same bits every run?
//
// In a tree that the shape alone fixes: the units of a thread, then the threads of a block (shared memory), then the
// blocks of a tile. The blocks leave partial results in the workspace and draw a ticket; whoever draws a tile's last
// one merges the partial results in the order of the blocks, whatever the order in which they came. No atomic adds a
// float.
#ifndef SYNCBN_REDUCE_CUH
#define SYNCBN_REDUCE_CUH

#include "tuning.cuh"

namespace syncbn {

// Units that a thread adds up in Compute<T> before they go into its float64: bounds the rounding errors of the sums.
constexpr int kFlushUnits = 64;

// The workspace: one ticket for each tile of a reduction of several blocks a tile, one for the normalization, and a
// gate for each such tile; then float64: a reduction's partial results [unit blocks][kMaxStored][channels], or the
// normalization's statistics [3][channels]. What is counted comes first and takes the same space at any number of
// channels, so that layers may share a workspace. Each ticket is 0 whenever no kernel runs; a gate is any number.
constexpr int64_t kTickets = 256;
constexpr int64_t kNormalizeTicket = kTickets - 1;
constexpr int64_t kGates = kTickets;
constexpr int64_t kWords = 2 * kTickets;
static_assert(kMaxBlocks / 2 <= kNormalizeTicket, "tiles that have two blocks or more must find a ticket each");

constexpr int kMaxStored = 5;

struct Workspace {
  uint32_t *tickets;
  double *values;
};

inline Workspace workspace_at(uint64_t address) {
  return {reinterpret_cast<uint32_t *>(address), reinterpret_cast<double *>(address + kWords * sizeof(uint32_t))};
}

// Of whatever variant has the most partial results. In kRows tiles are widest: kPlanes may have more blocks of units
// for a channel, but no more than kMaxBlocks blocks of its narrower tiles, or one for each tile.
inline int64_t workspace_bytes(int64_t channels) {
  const int64_t blocks = max_unit_blocks(kReduceTiling, 1, {1, channels, 1});
  return kWords * static_cast<int64_t>(sizeof(uint32_t)) + blocks * kMaxStored * channels * 8;
}

// kValues float64 for each of a thread's channels, and the number of elements that they stand for: one number for all
// of its channels, or one for each where a mask may tell them apart.
template <typename V, int kValuesOf>
struct Partial {
  static constexpr int kValues = kValuesOf;
  static constexpr int kChannels = V::kChannels;
  static constexpr int kCounts = V::kSpecial ? kChannels : 1;
  static constexpr int kSize = kCounts + kValues * kChannels;
  static constexpr int kStored = kValues + (V::kSpecial ? 1 : 0);  // of a channel, in the workspace
  static_assert(kStored <= kMaxStored, "the workspace has room");

  double v[kSize];

  __device__ __forceinline__ double &at(int i) { return v[i]; }
  static constexpr __device__ int count_at(int c) { return kCounts == 1 ? 0 : c; }
  static constexpr __device__ int value_at(int i, int c) { return kCounts + i * kChannels + c; }

  __device__ __forceinline__ double &count(int c) { return v[count_at(c)]; }
  __device__ __forceinline__ double count(int c) const { return v[count_at(c)]; }
  __device__ __forceinline__ double &value(int i, int c) { return v[value_at(i, c)]; }
  __device__ __forceinline__ double value(int i, int c) const { return v[value_at(i, c)]; }
};

// Per channel: value 0 is the mean, value 1 the sum of squared deviations from it (Chan, Golub, LeVeque).
struct MergeMoments {
  template <typename Into, typename P>
  static __device__ __forceinline__ void merge(Into &into, const P &from) {
    double before[P::kCounts];
    double weight[P::kCounts];
#pragma unroll
    for (int c = 0; c < P::kCounts; ++c) {
      before[c] = into.count(c);
      into.count(c) += from.count(c);
      weight[c] = from.count(c) / into.count(c);
    }
#pragma unroll
    for (int c = 0; c < P::kChannels; ++c) {
      if (from.count(c) == 0) continue;
      const int i = P::kCounts == 1 ? 0 : c;
      const double delta = from.value(0, c) - into.value(0, c);
      into.value(0, c) = fused(delta, weight[i], into.value(0, c));
      into.value(1, c) += fused(delta * delta, before[i] * weight[i], from.value(1, c));
    }
  }
};

// Per channel: sums.
struct AddSums {
  template <typename Into, typename P>
  static __device__ __forceinline__ void merge(Into &into, const P &from) {
#pragma unroll
    for (int i = 0; i < P::kSize; ++i) into.at(i) += from.v[i];
  }
};

// One value for each of a thread's channels: adds up the elements of one channel.
template <typename V>
__device__ __forceinline__ double of_channel(const typename V::Real (&lanes)[V::kWidth], int c) {
  double sum = 0;
#pragma unroll
  for (int j = 0; j < V::kWidth; ++j) {
    if (V::channel_of(j) == c) sum += lanes[j];
  }
  return sum;
}

// A column of shared memory for each thread of the block.
template <typename P>
__device__ __forceinline__ auto &columns() {
  __shared__ double shared[P::kSize][kThreads];
  return shared;
}

// A thread's partial result while it adds up: here it takes no registers from the units in flight.
template <typename P>
struct Stash {
  static constexpr int kChannels = P::kChannels;
  static constexpr int kCounts = P::kCounts;

  __device__ __forceinline__ double &count(int c) const { return at(P::count_at(c)); }
  __device__ __forceinline__ double &value(int i, int c) const { return at(P::value_at(i, c)); }

  __device__ __forceinline__ void clear() const {
#pragma unroll
    for (int i = 0; i < P::kSize; ++i) at(i) = 0;
  }

  __device__ __forceinline__ void store(const P &partial) const {
#pragma unroll
    for (int i = 0; i < P::kSize; ++i) at(i) = partial.v[i];
  }

  // Of this thread, or of one further on.
  __device__ __forceinline__ P load(unsigned threads_on = 0) const {
    P partial;
#pragma unroll
    for (int i = 0; i < P::kSize; ++i) partial.v[i] = columns<P>()[i][thread_of_block() + threads_on];
    return partial;
  }

  // The compiler would keep in registers what it has just stored, if it knew that it is the same thread's column.
  static __device__ __forceinline__ double &at(int i) {
    int64_t thread = thread_of_block();
    forget(thread);
    return columns<P>()[i][thread];
  }
};

// Where a thread has units in its registers, partial results of many channels stay in their columns, also where they
// are merged.
template <bool kKeeps, typename P>
constexpr bool kMergesInColumns = kKeeps &&P::kChannels == 8;

template <typename Merge, bool kInColumns, typename P>
__device__ __forceinline__ void merge_into(P &partial, const P &from) {
  if constexpr (kInColumns) {
    const Stash<P> stash;
    Merge::merge(stash, from);
  } else {
    Merge::merge(partial, from);
  }
}

// Merges the partial results of the threads of a lane; that whose turn is 0 returns the result. blockDim.y is a power
// of two. Called twice, it needs a __syncthreads() between.
template <typename V, typename Merge, bool kInColumns, typename P>
__device__ __forceinline__ void reduce_block(P &partial, const Share &share) {
  const Stash<P> stash;
  const unsigned to_next_turn = V::kLayout == Layout::kRows ? blockDim.x : 1;
  if (kInColumns) stash.store(partial);
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    // A thread writes once for others, before the round in which they read; so one barrier a round is enough.
    if (!kInColumns && share.turn >= half && share.turn < 2 * half) stash.store(partial);
    __syncthreads();
    if (share.turn >= half) continue;
    merge_into<Merge, kInColumns>(partial, stash.load(half * to_next_turn));
  }
  if (kInColumns) partial = stash.load();
}

// Whether this block is the last of `blocks` to come here, and so sees all that the others wrote before they came. The
// same answer in all threads; leaves the ticket at 0. The fences of the one thread that draws, between the barriers,
// order the accesses of its whole block: those before against the draw, and the draw against those after.
__device__ __forceinline__ bool is_last_block(uint32_t *ticket, unsigned blocks) {
  __shared__ uint32_t drawn;
  __syncthreads();
  if (thread_of_block() == 0) {
    __threadfence();
    drawn = atomicInc(ticket, blocks - 1);
    __threadfence();
  }
  __syncthreads();
  return drawn == blocks - 1;
}

// Merges the partial results of all blocks of this tile. True in the threads of one block a tile; there, those whose
// turn is 0 return the result. kKeeps: threads have units in their registers.
template <typename V, typename Merge, bool kKeeps, typename P>
__device__ __forceinline__ bool reduce_tile(P &partial, const Geometry &geometry, const Share &share,
                                            const Workspace &workspace) {
  constexpr bool kInColumns = kMergesInColumns<kKeeps, P>;
  reduce_block<V, Merge, kInColumns>(partial, share);
  const unsigned blocks = gridDim.y;
  if (blocks == 1) return true;

  const int64_t channels = geometry.channels;
  double *const values = workspace.values + share.channel;
  if (share.turn == 0 && share.exists) {
    double *at = values + blockIdx.y * channels * P::kStored;
#pragma unroll
    for (int c = 0; c < P::kChannels; ++c) {
#pragma unroll
      for (int i = 0; i < P::kValues; ++i) at[i * channels + c] = partial.value(i, c);
      if constexpr (V::kSpecial) at[P::kValues * channels + c] = partial.count(c);
    }
  }
  if (!is_last_block(workspace.tickets + blockIdx.x, blocks)) return false;

  partial = P{};
  if (kInColumns) Stash<P>{}.clear();
  for (unsigned block = share.turn; share.exists && block < blocks; block += blockDim.y) {
    const double *at = values + block * channels * P::kStored;
    P from;
    if constexpr (!V::kSpecial) {
      const int64_t units = range_of_block(geometry.units, block, blocks).count;
      from.count(0) = static_cast<double>(units * V::kElementsOfUnit);
    }
#pragma unroll
    for (int c = 0; c < P::kChannels; ++c) {
#pragma unroll
      for (int i = 0; i < P::kValues; ++i) from.value(i, c) = __ldcg(at + i * channels + c);
      if constexpr (V::kSpecial) from.count(c) = __ldcg(at + P::kValues * channels + c);
    }
    merge_into<Merge, kInColumns>(partial, from);
  }
  if (kInColumns) partial = Stash<P>{}.load();
  reduce_block<V, Merge, kInColumns>(partial, share);
  return true;
}

}  // namespace syncbn

#endif
