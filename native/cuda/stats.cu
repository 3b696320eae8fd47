// Per-channel count, mean and sum of squared deviations (M2) of one rank's share, into its row.
//
// in   x          [outer, channels, inner] float32, float16, bfloat16 or float64, dense
//      mask       uint8, strided, or null: where it is 0, the element does not count and is not looked at
// out  exchange   [world_size][2 + 2 * channels] float64: this rank's [signature, count, mean, M2], zeros elsewhere;
//                 or [world_size][2 + 3 * channels]: [signature, 0, mean, M2, count]
//      workspace  see reduce.cuh
//
// Algorithm  A thread adds up 64 units at a time in float32 (float64 for float64), shifted by the mean that it has so
//            far (at first that of its first 4 units), and merges them into a float64 mean and M2; these merge in a
//            fixed tree, the means relative to the channel's first element. So the variance keeps its digits at |mean|
//            = 1e4 sigma. Squared deviations must fit float32: values within 1e18 of their channel's mean. Infinities
//            and NaN stay in their channel.
// Launch     rows: block (1 .. 32, 256 .. 8), grid (channels / 32, unit blocks); planes: block (1 .. 8, 256 .. 32),
//            grid (channels / (1 .. 8), unit blocks). At most 264 blocks, or one a tile of channels; two fit a
//            multiprocessor.
// Traffic    reads x once, and the mask; writes 16 bytes a channel and unit block (24 with a mask), and the rows. 64 KB
//            in flight a multiprocessor.
// Designed   for rows (channels) or runs (inner) of whole 16-byte units and x aligned to 16 bytes; then by width: 8, 4
//            or 1 elements of 2 bytes, 4 or 1 of 4 bytes, 2 or 1 of 8. Right for all others; a mask takes 1.
// Result     deterministic; the order of the sums follows from shape, dtype and whether there is a mask, on every
//            device.
// Index      64-bit: outer * channels * inner may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

// The first shift is taken from so many units, in every variant: alignment must not change the bits.
constexpr int kShiftUnits = 4;

template <typename V>
constexpr int kUnits = units_in_flight<V>(1);

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
template <typename V>
__device__ __forceinline__ void find_shift(Shift<V> &shift, const Packed<V> (&x)[kUnits<V>],
                                           const Bits (&counts)[kUnits<V>], int units) {
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

// Adds up to kUnits units, and moves the cursor past them.
template <typename V>
__device__ __forceinline__ void add_units(Deviations<V> &deviations, Shift<V> &shift, Cursor<V> &cursor,
                                          const StatsParams &p, int units) {
  using Real = typename V::Real;
  Packed<V> x[kUnits<V>];
  Bits counts[kUnits<V>];
#pragma unroll
  for (int k = 0; k < kUnits<V>; ++k) {
    x[k] = {};
    counts[k] = kAllBits;
    if (k < units) {
      x[k] = load_unit<V, Keep>(static_cast<const typename V::Element *>(p.x) + cursor.offset);
      if (V::kSpecial && p.mask) counts[k] = load_bits<V>(p.mask + cursor.mask);
    }
    cursor.advance(p.geometry);
  }
  constexpr Bits kKnown = (Bits{1} << V::kChannels) - 1;
  if (shift.known != kKnown) find_shift(shift, x, counts, units);
#pragma unroll
  for (int k = 0; k < kUnits<V>; ++k) {
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
template <typename V>
__device__ __forceinline__ Moments<V> accumulate(const StatsParams &p, const Share &share, const Origin<V> &origin) {
  static_assert(kFlushUnits % kUnits<V> == 0, "a flush follows a whole number of loads");
  Cursor<V> cursor(p.geometry, share);
  const Stash<Moments<V>> stash;
  stash.clear();
  Shift<V> shift = {};
  for (int64_t left = share.count; left > 0; left -= kFlushUnits) {
    const int units = left < kFlushUnits ? static_cast<int>(left) : kFlushUnits;
    Deviations<V> deviations = {};
    int done = 0;
    for (; done + kUnits<V> <= units; done += kUnits<V>) add_units(deviations, shift, cursor, p, kUnits<V>);
    if (done < units) add_units(deviations, shift, cursor, p, units - done);
    MergeMoments::merge(stash, moments(deviations, shift, origin, units * V::kElementsOfUnit));
#pragma unroll
    for (int c = 0; c < V::kChannels; ++c) {
      if (!has_bit(shift.known, c)) continue;
      shift.value[c] = static_cast<typename V::Real>(origin.value[c] + stash.value(0, c));
    }
  }
  return stash.load();
}

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    stats_kernel(const __grid_constant__ StatsParams p) {
  const Share share = share_of<V>(p.geometry, this_place());
  const Origin<V> origin = find_origin<V>(p, share);
  Moments<V> result = accumulate<V>(p, share, origin);
  if (!reduce_tile<V, MergeMoments>(result, p.geometry, share, p.workspace)) return;
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    if (result.count(c) != 0) result.value(0, c) += origin.value[c];
  }
  write_rows(p.exchange, p.rank, share, result, {p.signature, p.exchange.channel_counts ? 0 : result.count(0)});
}

struct StatsKernels {
  static constexpr Tiling kTiling = kReduceTiling;
  template <typename V>
  static auto of() {
    return stats_kernel<V>;
  }
};

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_stats(const syncbn_stats_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  const Plan plan = plan_of(StatsKernels::kTiling, args->dtype, shape_of(*args), mask_strides_of(*args),
                            args->mask != 0, {args->x}, 0);
  StatsParams p;
  p.x = pointer<const void>(args->x);
  p.mask = pointer<const uint8_t>(args->mask);
  p.geometry = plan.geometry;
  p.exchange = rows_of(args->rows, kForwardRowHead, args->channels, args->channel_counts != 0, args->world_size);
  p.rank = args->rank;
  p.signature = args->signature;
  p.workspace = workspace_at(args->workspace);
  return enqueue("stats", choose<StatsKernels>(plan), plan.shape, args->stream, p);
}
