// How does a thread add up gradients, and how do the sums become a rank's row and the gradients of gamma and beta? For
// the kernels that do: backward_reduce.cu says how, backward.cu does it with elements that it keeps.
#ifndef SYNCBN_BACKWARD_REDUCE_CUH
#define SYNCBN_BACKWARD_REDUCE_CUH

#include "chip.cuh"
#include "entry.cuh"

namespace syncbn {

struct BackwardReduceParams {
  const void *x;
  const void *dy;
  const uint8_t *mask;
  const uint8_t *relu_mask;
  const void *adjust_scale;
  const void *adjust_bias;
  void *dresidual;
  const double *saved;
  const void *gamma;
  const void *beta;
  Geometry geometry;
  bool relu;
  Rows exchange;
  int rank;
  double signature;
  void *gamma_grad;
  void *beta_grad;
  Workspace workspace;
};

// kSpecial has all four sums, the others the first two.
enum Sum { kGradient, kProduct, kUnscaled, kBias };
template <typename V>
constexpr int kSums = V::kSpecial ? 4 : 2;

template <typename V>
using Sums = Partial<V, kSums<V>>;

// Since the last flush. kProduct is of A * g and x - mean.
template <typename V>
struct Accumulator {
  typename V::Real sum[kSums<V>][V::kWidth];
  int added[V::kChannels];  // kSpecial
};

// Adds up to kUnits units, hands x and g to the keeper, and moves the cursor past them.
template <int kUnits, bool kFirst, typename V, typename Keeper>
__device__ __forceinline__ void add_units(Accumulator<V> &acc,
                                          const Transform<typename V::Real> (&transforms)[V::kChannels],
                                          Cursor<V> &cursor, const BackwardReduceParams &p, int units, Keeper &keeper) {
  using T = typename V::Element;
  using Real = typename V::Real;
  const Adjustment<Real> adjustment = {static_cast<const Real *>(p.adjust_scale),
                                       static_cast<const Real *>(p.adjust_bias)};
  Packed<V> x[kUnits];
  Packed<V> dy[kUnits];
  Bits counts[kUnits];
  Bits positive[kUnits];
  Adjusting<V> adjusting[kUnits];
  Cursor<V> ahead = cursor;
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
    x[k] = dy[k] = {};
    counts[k] = positive[k] = kAllBits;
    if (k < units) {
      x[k] = load_unit<V, typename Keeper::Cache>(static_cast<const T *>(p.x) + ahead.offset);
      dy[k] = load_unit<V, typename Keeper::Cache>(static_cast<const T *>(p.dy) + ahead.offset);
      if (p.relu_mask) positive[k] = load_bits<V>(p.relu_mask + ahead.offset);
      if constexpr (V::kSpecial) {
        if (p.mask) counts[k] = load_bits<V>(p.mask + ahead.mask);
        adjusting[k] = load_adjustment<V>(adjustment, ahead.offset);
      }
    }
    ahead.advance(p.geometry);
  }
  cursor.forget_way();
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
    if (k < units) {
      const Unit<V> inputs = unpack<V>(x[k]);
      Unit<V> gradient = unpack<V>(dy[k]);
#pragma unroll
      for (int j = 0; j < V::kWidth; ++j) {
        const int c = V::channel_of(j);
        const Transform<Real> &t = transforms[c];
        const Real value = computed(inputs.v[j]);
        bool passes = has_bit(positive[k], j);
        if (p.relu && !p.relu_mask) {
          const Real v =
              V::kSpecial && adjustment.scale ? apply(t, value, adjusting[k].a[j], adjusting[k].b[j]) : apply(t, value);
          passes = v > 0;
        }
        if (!passes) gradient.v[j] = T{};
        const Real g = computed(gradient.v[j]);
        if constexpr (V::kSpecial) {
          if (!has_bit(counts[k], j) && g == 0) continue;
          const Real scaled = adjusting[k].a[j] * g;
          acc.sum[kGradient][j] += scaled;
          acc.sum[kProduct][j] = fused(scaled, value - t.mean, acc.sum[kProduct][j]);
          acc.sum[kUnscaled][j] += g;
          acc.sum[kBias][j] = fused(g, adjusting[k].b[j], acc.sum[kBias][j]);
          ++acc.added[c];
        } else {
          acc.sum[kGradient][j] += g;
          acc.sum[kProduct][j] = fused(g, value - t.mean, acc.sum[kProduct][j]);
        }
      }
      if (p.dresidual) store_unit<V>(static_cast<T *>(p.dresidual) + cursor.offset, gradient);
      keeper.keep(kFirst, k, x[k], pack<V>(gradient));
    }
    cursor.advance(p.geometry);
  }
  keeper.advance(kFirst, units);
}

// The sums of a thread's units.
template <typename V, typename Keeper>
__device__ __forceinline__ Sums<V> accumulate(const BackwardReduceParams &p, const Share &share, Keeper &keeper) {
  using Real = typename V::Real;
  Transform<Real> transforms[V::kChannels] = {};
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    if (!share.exists) continue;
    const int64_t channel = share.channel + c;
    const Normalization n = load_saved(p.saved, p.geometry.channels, channel);
    transforms[c] = transform_of<Real>(n, parameter<Real>(p.gamma, channel, 1), parameter<Real>(p.beta, channel, 0),
                                       p.adjust_scale != nullptr);
  }
  Cursor<V> cursor(p.geometry, share);
  const Stash<Sums<V>> stash;
  stash.clear();
  for (int64_t left = share.count; left > 0; left -= kFlushUnits) {
    const int units = left < kFlushUnits ? static_cast<int>(left) : kFlushUnits;
    Accumulator<V> acc = {};
    int done = 0;
    if constexpr (Keeper::kKeeps) {
      if (left == share.count) {
        done = min(units, Keeper::kHeld);
        add_units<Keeper::kHeld, true>(acc, transforms, cursor, p, done, keeper);
      }
    }
    constexpr int kUnits = Keeper::kLater;
    for (; done + kUnits <= units; done += kUnits) {
      add_units<kUnits, false>(acc, transforms, cursor, p, kUnits, keeper);
    }
    if (done < units) add_units<kUnits, false>(acc, transforms, cursor, p, units - done, keeper);
    if constexpr (!V::kSpecial) stash.count(0) += units * V::kElementsOfUnit;
#pragma unroll
    for (int c = 0; c < V::kChannels; ++c) {
      if constexpr (V::kSpecial) stash.count(c) += acc.added[c];
#pragma unroll
      for (int i = 0; i < kSums<V>; ++i) stash.value(i, c) += of_channel<V>(acc.sum[i], c);
    }
  }
  return stash.load();
}

// From sums with x - (high part of the mean) to sums with xhat; and the gradients.
template <typename V>
__device__ __forceinline__ void finish_sums(const BackwardReduceParams &p, const Share &share, Sums<V> &sums) {
  using Real = typename V::Real;
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) {
    const int64_t channel = share.channel + c;
    double gamma_grad = 0;
    // Sums of nothing are 0, whatever 1 / sigma is.
    if (sums.count(c) != 0) {
      const Normalization n = load_saved(p.saved, p.geometry.channels, channel);
      const double gradient = sums.value(kGradient, c);
      const double low = n.mean - static_cast<Real>(n.mean);
      const double product = n.inverse_sigma * fused(-low, gradient, sums.value(kProduct, c));
      sums.value(kProduct, c) = product;
      gamma_grad = fused(n.r, product, __dmul_rn(n.d, gradient));
      if constexpr (V::kSpecial) gamma_grad += sums.value(kBias, c);
    }
    const double beta_grad = sums.value(V::kSpecial ? kUnscaled : kGradient, c);
    if (p.gamma_grad) static_cast<Real *>(p.gamma_grad)[channel] = static_cast<Real>(gamma_grad);
    if (p.beta_grad) static_cast<Real *>(p.beta_grad)[channel] = static_cast<Real>(beta_grad);
  }
}

// By one whole block a tile, whose threads with turn 0 bring the tile's sums.
template <typename V>
__device__ __forceinline__ void write_sums(const BackwardReduceParams &p, const Share &share, Sums<V> &sums) {
  if (share.turn == 0 && share.exists) finish_sums<V>(p, share, sums);
  if (p.exchange.address) write_rows(p.exchange, p.rank, share, sums, {p.signature});
}

inline BackwardReduceParams params_of(const syncbn_backward_reduce_args &args, const Plan &plan) {
  BackwardReduceParams p;
  p.x = pointer<const void>(args.x);
  p.dy = pointer<const void>(args.dy);
  p.mask = pointer<const uint8_t>(args.mask);
  p.relu_mask = pointer<const uint8_t>(args.relu ? args.relu_mask : 0);
  p.adjust_scale = pointer<const void>(args.adjust_scale);
  p.adjust_bias = pointer<const void>(args.adjust_bias);
  p.dresidual = pointer<void>(args.dresidual);
  p.saved = pointer<const double>(args.saved);
  p.gamma = pointer<const void>(args.gamma);
  p.beta = pointer<const void>(args.beta);
  p.geometry = plan.geometry;
  p.relu = args.relu != 0;
  p.exchange = rows_of(args.rows, kBackwardRowHead, args.channels, false, args.world_size);
  p.rank = args.rank;
  p.signature = args.signature;
  p.gamma_grad = pointer<void>(args.gamma_grad);
  p.beta_grad = pointer<void>(args.beta_grad);
  p.workspace = workspace_at(args.workspace);
  return p;
}

}  // namespace syncbn

#endif
