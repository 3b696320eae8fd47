// Per-channel sums of A * g and A * g * xhat of one rank's share, xhat = (x - mean) / sigma: this rank's row; and its
// share of the gradients of beta and gamma. g is dy, behind a ReLU 0 where v was not above 0; A is the adjustment's
// scale, or 1.
//
// in   x, dy        [outer, channels, inner] float32, float16, bfloat16 or float64, dense
//      saved        [5][channels] float64: count, mean, 1 / sigma, r, d, from normalize
//      gamma, beta  ReLU without relu_mask: [channels] parameters, or null, as in forward, to find v again
//      relu_mask    ReLU: [outer, channels, inner] uint8, from normalize, or null
//      mask         uint8, strided, or null: where it is 0 and g is 0, the element is not looked at
//      adjustment   two tensors of parameters in the shape of x, or null
// out  exchange     [world_size][1 + 2 * channels] float64, or null: this rank's [signature, sum of A * g, sum of
//                   A * g * xhat], zeros elsewhere
//      gamma_grad   [channels] parameters, or null: the sum of g * (the factor of gamma in v)
//      beta_grad    [channels] parameters, or null: the sum of g
//      dresidual    [outer, channels, inner], or null: g; may be dy
//      workspace    see reduce.cuh
//
// Algorithm  A thread adds up A * g and A * g * (x - high part of the mean) over 64 units at a time in float32 (float64
//            for float64), and these in float64; the sums of threads and blocks are added in a fixed tree. What the low
//            part of the mean and 1 / sigma do to the sum is done to the sum. With an adjustment there are two more,
//            of g and of g * (its bias).
// Launch     rows: block (1 .. 32, 256 .. 8), grid (channels / 32, unit blocks); planes: block (1 .. 8, 256 .. 32),
//            grid (channels / (1 .. 8), unit blocks). At most 264 blocks, or one a tile of channels; two fit a
//            multiprocessor.
// Traffic    reads x, dy and what else is given once; writes dresidual, 16 bytes a channel and unit block (40 with a
//            mask or an adjustment), the rows and the gradients. 64 KB of x and dy in flight a multiprocessor.
// Designed   for rows (channels) or runs (inner) of whole 16-byte units and tensors aligned to 16 bytes; then by width:
//            8, 4 or 1 elements of 2 bytes, 4 or 1 of 4 bytes, 2 or 1 of 8. Right for all others; a mask or an
//            adjustment takes 1.
// Result     deterministic; the order of the sums follows from shape, dtype and whether there is a mask or an
//            adjustment, on every device.
// Index      64-bit: outer * channels * inner may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

template <typename V>
constexpr int kUnits = units_in_flight<V>(2);

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

// Adds up to kUnits units, and moves the cursor past them.
template <typename V>
__device__ __forceinline__ void add_units(Accumulator<V> &acc,
                                          const Transform<typename V::Real> (&transforms)[V::kChannels],
                                          Cursor<V> &cursor, const BackwardReduceParams &p, int units) {
  using T = typename V::Element;
  using Real = typename V::Real;
  const Adjustment<Real> adjustment = {static_cast<const Real *>(p.adjust_scale),
                                       static_cast<const Real *>(p.adjust_bias)};
  Packed<V> x[kUnits<V>];
  Packed<V> dy[kUnits<V>];
  Bits counts[kUnits<V>];
  Bits positive[kUnits<V>];
  Adjusting<V> adjusting[kUnits<V>];
  Cursor<V> ahead = cursor;
#pragma unroll
  for (int k = 0; k < kUnits<V>; ++k) {
    x[k] = dy[k] = {};
    counts[k] = positive[k] = kAllBits;
    if (k < units) {
      x[k] = load_unit<V, Keep>(static_cast<const T *>(p.x) + ahead.offset);
      dy[k] = load_unit<V, Keep>(static_cast<const T *>(p.dy) + ahead.offset);
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
  for (int k = 0; k < kUnits<V>; ++k) {
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
    }
    cursor.advance(p.geometry);
  }
}

// The sums of a thread's units.
template <typename V>
__device__ __forceinline__ Sums<V> accumulate(const BackwardReduceParams &p, const Share &share) {
  static_assert(kFlushUnits % kUnits<V> == 0, "a flush follows a whole number of loads");
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
    for (; done + kUnits<V> <= units; done += kUnits<V>) add_units(acc, transforms, cursor, p, kUnits<V>);
    if (done < units) add_units(acc, transforms, cursor, p, units - done);
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

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    backward_reduce_kernel(const __grid_constant__ BackwardReduceParams p) {
  const Share share = share_of<V>(p.geometry, this_place());
  Sums<V> sums = accumulate<V>(p, share);
  if (!reduce_tile<V, AddSums>(sums, p.geometry, share, p.workspace)) return;
  if (share.turn == 0 && share.exists) finish_sums<V>(p, share, sums);
  if (p.exchange.address) write_rows(p.exchange, p.rank, share, sums, {p.signature});
}

struct BackwardReduceKernels {
  static constexpr Tiling kTiling = kReduceTiling;
  template <typename V>
  static auto of() {
    return backward_reduce_kernel<V>;
  }
};

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_backward_reduce(const syncbn_backward_reduce_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  const syncbn_address relu_mask = args->relu ? args->relu_mask : 0;
  const Plan plan =
      plan_of(BackwardReduceKernels::kTiling, args->dtype, shape_of(*args), mask_strides_of(*args),
              args->mask != 0 || args->adjust_scale != 0, {args->x, args->dy, args->dresidual}, relu_mask);
  BackwardReduceParams p;
  p.x = pointer<const void>(args->x);
  p.dy = pointer<const void>(args->dy);
  p.mask = pointer<const uint8_t>(args->mask);
  p.relu_mask = pointer<const uint8_t>(relu_mask);
  p.adjust_scale = pointer<const void>(args->adjust_scale);
  p.adjust_bias = pointer<const void>(args->adjust_bias);
  p.dresidual = pointer<void>(args->dresidual);
  p.saved = pointer<const double>(args->saved);
  p.gamma = pointer<const void>(args->gamma);
  p.beta = pointer<const void>(args->beta);
  p.geometry = plan.geometry;
  p.relu = args->relu != 0;
  p.exchange = rows_of(args->rows, kBackwardRowHead, args->channels, false, args->world_size);
  p.rank = args->rank;
  p.signature = args->signature;
  p.gamma_grad = pointer<void>(args->gamma_grad);
  p.beta_grad = pointer<void>(args->beta_grad);
  p.workspace = workspace_at(args->workspace);
  return enqueue("backward_reduce", choose<BackwardReduceKernels>(plan), plan.shape, args->stream, p);
}
