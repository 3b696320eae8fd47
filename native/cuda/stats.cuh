// How does a thread add up the elements of its channels, and how does that become a rank's row? For the kernels that
// find statistics: stats.cu says how, forward.cu does it with elements that it keeps.
#ifndef SYNCBN_STATS_CUH
#define SYNCBN_STATS_CUH

#include "chip.cuh"
#include "entry.cuh"

namespace syncbn {

// The first shift is taken from so many units, in every variant: alignment must not change the bits.
constexpr int kShiftUnits = 4;

struct StatsParams {
  const void *x;
  const uint8_t *mask;
  Geometry geometry;
  Rows exchange;
  int rank;
  double signature;
  Workspace workspace;
};

// What a thread has added up since the last flush: deviations from a shift, and their squares.
template <typename V>
struct Deviations {
  typename V::Real sum[V::kWidth];
  typename V::Real squares[V::kWidth];
  int counted[V::kChannels];  // kSpecial
};

// Of each of a thread's channels.
template <typename V>
struct Shift {
  typename V::Real value[V::kChannels];
  Bits known;
};

// Near the values of a thread's first units: the mean of them, relative to the first, so that equal values give it
// exactly. A channel of which no element counts goes without.
template <typename V, int kUnits>
__device__ __forceinline__ void find_shift(Shift<V> &shift, const Packed<V> (&x)[kUnits], const Bits (&counts)[kUnits],
                                           int units) {
  static_assert(kUnits >= kShiftUnits, "the shift comes from the same units in every variant");
  using Real = typename V::Real;
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    if (has_bit(shift.known, c)) continue;
    Real first = 0;
    Real sum = 0;
    int counted = 0;
#pragma unroll
    for (int k = 0; k < kShiftUnits; ++k) {
      const Unit<V> unit = unpack<V>(x[k]);
#pragma unroll
      for (int j = 0; j < V::kWidth; ++j) {
        if (V::channel_of(j) != c || k >= units || !has_bit(counts[k], j)) continue;
        const Real value = computed(unit.v[j]);
        if (counted == 0) first = value;
        sum += value - first;
        ++counted;
      }
    }
    if (counted == 0) continue;
    shift.value[c] = first + sum / static_cast<Real>(counted);
    shift.known |= Bits{1} << c;
  }
}

// Adds up to kUnits units, hands them to the keeper, and moves the cursor past them.
template <int kUnits, bool kFirst, typename V, typename Keeper>
__device__ __forceinline__ void add_units(Deviations<V> &deviations, Shift<V> &shift, Cursor<V> &cursor,
                                          const StatsParams &p, int units, Keeper &keeper) {
  using Real = typename V::Real;
  Packed<V> x[kUnits];
  Bits counts[kUnits];
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
    x[k] = {};
    counts[k] = kAllBits;
    if (k < units) {
      x[k] = load_unit<V, typename Keeper::Cache>(static_cast<const typename V::Element *>(p.x) + cursor.offset);
      if (V::kSpecial && p.mask) counts[k] = load_bits<V>(p.mask + cursor.mask);
    }
    cursor.advance(p.geometry);
  }
  constexpr Bits kKnown = (Bits{1} << V::kChannels) - 1;
  if (shift.known != kKnown) find_shift<V>(shift, x, counts, units);
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
    if (Keeper::kKeeps && k < units) keeper.keep(kFirst, k, x[k]);
    const Unit<V> unit = unpack<V>(x[k]);
#pragma unroll
    for (int j = 0; j < V::kWidth; ++j) {
      const int c = V::channel_of(j);
      if (k >= units || (V::kSpecial && !has_bit(counts[k], j))) continue;
      const Real d = computed(unit.v[j]) - shift.value[c];
      deviations.sum[j] += d;
      deviations.squares[j] = fused(d, d, deviations.squares[j]);
      if constexpr (V::kSpecial) ++deviations.counted[c];
    }
  }
  keeper.advance(kFirst, units);
}

template <typename V>
using Moments = Partial<V, 2>;

// What the means of all threads are relative to until the last one, of each of a thread's channels: float64 has no
// digits to spare for a large mean.
template <typename V>
struct Origin {
  typename V::Real value[V::kChannels];
};

// The channel's first element, where that can be used.
template <typename V>
__device__ __forceinline__ Origin<V> find_origin(const StatsParams &p, const Share &share) {
  Origin<V> origin = {};
  if (!share.exists || p.geometry.units == 0) return origin;
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    const int64_t channel = share.channel + c;
    if (V::kSpecial && p.mask && p.mask[channel * p.geometry.mask.unit.channel] == 0) continue;
    const auto *x = static_cast<const typename V::Element *>(p.x) + channel * p.geometry.tensor.unit.channel;
    const typename V::Real value = computed(*x);
    if (isfinite(value)) origin.value[c] = value;
  }
  return origin;
}

// Mean and M2 of what the deviations stand for. elements: of each channel, where they all count.
template <typename V>
__device__ __forceinline__ Moments<V> moments(const Deviations<V> &deviations, const Shift<V> &shift,
                                              const Origin<V> &origin, int elements) {
  Moments<V> result;
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    const int counted = V::kSpecial ? deviations.counted[c] : elements;
    const double sum = of_channel<V>(deviations.sum, c);
    const double mean = counted == 0 ? 0 : __dmul_rn(sum, 1.0 / counted);
    result.count(c) = counted;
    result.value(0, c) = counted == 0 ? 0 : static_cast<double>(shift.value[c]) - origin.value[c] + mean;
    result.value(1, c) = fused(-sum, mean, of_channel<V>(deviations.squares, c));
  }
  return result;
}

// Mean, relative to the origin, and M2 of a thread's units.
template <typename V, typename Keeper>
__device__ __forceinline__ Moments<V> accumulate(const StatsParams &p, const Share &share, const Origin<V> &origin,
                                                 Keeper &keeper) {
  Cursor<V> cursor(p.geometry, share);
  const Stash<Moments<V>> stash;
  stash.clear();
  Shift<V> shift = {};
  for (int64_t left = share.count; left > 0; left -= kFlushUnits) {
    const int units = left < kFlushUnits ? static_cast<int>(left) : kFlushUnits;
    Deviations<V> deviations = {};
    int done = 0;
    if constexpr (Keeper::kKeeps) {
      if (left == share.count) {
        done = min(units, Keeper::kHeld);
        add_units<Keeper::kHeld, true>(deviations, shift, cursor, p, done, keeper);
      }
    }
    constexpr int kUnits = Keeper::kLater;
    for (; done + kUnits <= units; done += kUnits) {
      add_units<kUnits, false>(deviations, shift, cursor, p, kUnits, keeper);
    }
    if (done < units) add_units<kUnits, false>(deviations, shift, cursor, p, units - done, keeper);
    MergeMoments::merge(stash, moments(deviations, shift, origin, units * V::kElementsOfUnit));
#pragma unroll
    for (int c = 0; c < V::kChannels; ++c) {
      if (!has_bit(shift.known, c)) continue;
      shift.value[c] = static_cast<typename V::Real>(origin.value[c] + stash.value(0, c));
    }
  }
  return stash.load();
}

// By one whole block a tile, whose threads with turn 0 bring the tile's moments, relative to the origin.
template <typename V>
__device__ __forceinline__ void write_statistics(const StatsParams &p, const Share &share, const Origin<V> &origin,
                                                 Moments<V> &result) {
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    if (result.count(c) != 0) result.value(0, c) += origin.value[c];
  }
  write_rows(p.exchange, p.rank, share, result, {p.signature, p.exchange.channel_counts ? 0 : result.count(0)});
}

inline StatsParams params_of(const syncbn_stats_args &args, const Plan &plan) {
  StatsParams p;
  p.x = pointer<const void>(args.x);
  p.mask = pointer<const uint8_t>(args.mask);
  p.geometry = plan.geometry;
  p.exchange = rows_of(args.rows, kForwardRowHead, args.channels, args.channel_counts != 0, args.world_size);
  p.rank = args.rank;
  p.signature = args.signature;
  p.workspace = workspace_at(args.workspace);
  return p;
}

}  // namespace syncbn

#endif
