// y = v, or max(v, 0): v = (xhat * r + d) * gamma + beta + residual, xhat = (x - mean) / sigma (transform.cuh). The
// statistics are the moving ones, saved ones, or those of all ranks; in the last case the state takes a step.
//
// in   x, residual      [outer, channels, inner] float32, float16, bfloat16 or float64, dense; residual or null
//      gamma, beta      [channels] parameters, or null: 1 and 0
//      adjustment       two tensors of parameters in the shape of x, or null
//      exchange         batch: forward rows (rows.cuh), what stats wrote, summed over the ranks
// out  y                [outer, channels, inner]; may be x or residual
//      relu_mask        [outer, channels, inner] uint8, or null: 1 where v > 0
//      saved            [5][channels] float64, or null: count of all ranks, mean, 1 / sigma, r, d; input where the
//                       statistics are saved ones
// i/o  state            [channels] parameters each: moving mean and variance, with renorm moving and renorm stddev and
//                       renorm mean; read only but for a batch. updates: int64 [1], or null
//      workspace        batch: its statistics, for the block that updates the state
//
// Algorithm  Every block merges the rows for its channels in float64, and works on elements in float32 (float64 for
//            float64), rounded once. The last block of the launch updates the state, when no other block needs the old
//            one any more: in float64, rounded once; and only if every row is of this step, the step was not aborted,
//            and the channel has an element.
// No data    A channel of which no element counts has mean 0 and variance 0. In inference the count in `saved` is 0.
// Launch     rows: block (1 .. 32, 256 .. 8), grid (channels / (32 .. 128), unit blocks), 128 being what units of 4 and
//            8 elements have; planes: block (1 .. 8, 256 .. 32), grid (channels / (1 .. 8), unit blocks). At most 264
//            blocks, or one a tile of channels; two fit a multiprocessor: one wave, since every block merges the rows.
// Traffic    reads x once, as its last use in the forward pass, and what else is given; writes y once, left in the
//            cache for the next layer, and the mask. 64 KB of x in flight a multiprocessor, and as much of a residual.
// Designed   for rows (channels) or runs (inner) of whole 16-byte units and tensors aligned to 16 bytes; narrower units
//            where shape or alignment asks for them: 8, 4 or 1 elements of 2 bytes, 4 or 1 of 4 bytes, 2 or 1 of 8.
//            Right for all others; an adjustment takes 1.
// Result     deterministic.
// Index      64-bit: outer * channels * inner may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

template <typename V>
constexpr int kUnits = units_in_flight<V>(1);

struct Renorm {
  bool on;
  double decay;
  double r_min;
  double r_max;
  double d_max;
  void *moving_stddev;
  void *mean;
  void *stddev;
};

struct NormalizeParams {
  const void *x;
  const void *residual;
  const void *adjust_scale;
  const void *adjust_bias;
  void *y;
  uint8_t *relu_mask;
  const void *gamma;
  const void *beta;
  void *moving_mean;
  void *moving_variance;
  double *saved;
  double epsilon;
  Geometry geometry;
  int statistics;
  bool relu;
  // Of a batch only.
  bool unbiased;
  bool cumulative;
  Rows exchange;
  double signature;
  double decay;
  Renorm renorm;
  int64_t *updates;
  syncbn_control *control;
  Workspace workspace;
};

// max and min that keep a NaN in `value`.
__device__ __forceinline__ double at_least(double value, double limit) { return value < limit ? limit : value; }
__device__ __forceinline__ double at_most(double value, double limit) { return value > limit ? limit : value; }

__device__ __forceinline__ double sigma_of(double variance, double epsilon) { return sqrt(variance + epsilon); }

template <typename Real>
__device__ __forceinline__ void renormalize(const NormalizeParams &p, int64_t channel, double sigma, Normalization &n) {
  const Renorm &renorm = p.renorm;
  const double limit = at_least(static_cast<const Real *>(renorm.stddev)[channel], sqrt(p.epsilon));
  n.r = at_most(at_least(sigma / limit, renorm.r_min), renorm.r_max);
  const double d = (n.mean - static_cast<const Real *>(renorm.mean)[channel]) / limit;
  n.d = at_most(at_least(d, -renorm.d_max), renorm.d_max);
}

// The normalization of a channel; its first block also hands on what it found.
template <typename Real>
__device__ __forceinline__ Normalization normalization_of(const NormalizeParams &p, int64_t channel) {
  if (p.statistics == SYNCBN_SAVED) return load_saved(p.saved, p.geometry.channels, channel);
  const bool batch = p.statistics == SYNCBN_BATCH;
  Statistics s;
  if (batch) {
    s = merge_statistics(p.exchange, channel);
  } else {
    s = {0, static_cast<const Real *>(p.moving_mean)[channel], static_cast<const Real *>(p.moving_variance)[channel]};
  }
  const double sigma = sigma_of(s.variance, p.epsilon);
  Normalization n = {s.mean, 1.0 / sigma, 1.0, 0.0};
  if (batch && p.renorm.on) renormalize<Real>(p, channel, sigma, n);
  if (blockIdx.y == 0) {
    if (p.saved) store_saved(p.saved, p.geometry.channels, channel, s.count, n);
    if (batch) {
      double *at = p.workspace.values + channel;
      at[0] = s.count;
      at[p.geometry.channels] = s.mean;
      at[2 * p.geometry.channels] = s.variance;
    }
  }
  return n;
}

// Up to kUnits units of a thread; moves the cursor past them.
template <typename V>
__device__ __forceinline__ void transform_units(const Transform<typename V::Real> (&transforms)[V::kChannels],
                                                const NormalizeParams &p, Cursor<V> &cursor, int units) {
  using T = typename V::Element;
  using Real = typename V::Real;
  const Adjustment<Real> adjustment = {static_cast<const Real *>(p.adjust_scale),
                                       static_cast<const Real *>(p.adjust_bias)};
  Packed<V> x[kUnits<V>];
  Packed<V> residual[kUnits<V>];
  Adjusting<V> adjusting[kUnits<V>];
  Cursor<V> ahead = cursor;
#pragma unroll
  for (int k = 0; k < kUnits<V>; ++k) {
    x[k] = residual[k] = {};
    if (k < units) {
      x[k] = load_unit<V, LastUse>(static_cast<const T *>(p.x) + ahead.offset);
      if (p.residual) residual[k] = load_unit<V, LastUse>(static_cast<const T *>(p.residual) + ahead.offset);
      if (V::kSpecial && adjustment.scale) adjusting[k] = load_adjustment<V>(adjustment, ahead.offset);
    }
    ahead.advance(p.geometry);
  }
  cursor.forget_way();
#pragma unroll
  for (int k = 0; k < kUnits<V>; ++k) {
    if (k < units) {
      const Unit<V> inputs = unpack<V>(x[k]);
      const Unit<V> residuals = unpack<V>(residual[k]);
      Unit<V> y;
      Bits positive = 0;
#pragma unroll
      for (int j = 0; j < V::kWidth; ++j) {
        const Transform<Real> &t = transforms[V::channel_of(j)];
        const Real value = computed(inputs.v[j]);
        Real v =
            V::kSpecial && adjustment.scale ? apply(t, value, adjusting[k].a[j], adjusting[k].b[j]) : apply(t, value);
        if (p.residual) v += computed(residuals.v[j]);
        positive |= static_cast<Bits>(v > 0) << j;
        if (p.relu && v <= 0) v = 0;  // a NaN stays
        round_to(y.v[j], v);
      }
      store_unit<V>(static_cast<T *>(p.y) + cursor.offset, y);
      if (p.relu_mask) store_bits<V>(p.relu_mask + cursor.offset, positive);
    }
    cursor.advance(p.geometry);
  }
}

// Moves a value of the state towards what the batch says, and returns where it is before it is rounded.
template <typename Real>
__device__ __forceinline__ double step_towards(void *state, int64_t channel, double batch, double decay) {
  Real &value = static_cast<Real *>(state)[channel];
  const double old = value;
  const double now = fused(batch - old, decay, old);
  value = static_cast<Real>(now);
  return now;
}

template <typename Real>
__device__ __forceinline__ void update_channel(const NormalizeParams &p, int64_t channel, const Statistics &s,
                                               double decay) {
  step_towards<Real>(p.moving_mean, channel, s.mean, decay);
  if (p.renorm.on) {
    const double sigma = sigma_of(s.variance, p.epsilon);
    step_towards<Real>(p.renorm.mean, channel, s.mean, p.renorm.decay);
    step_towards<Real>(p.renorm.stddev, channel, sigma, p.renorm.decay);
    const double stddev = step_towards<Real>(p.renorm.moving_stddev, channel, sigma, decay);
    static_cast<Real *>(p.moving_variance)[channel] = static_cast<Real>(at_least(fused(stddev, stddev, -p.epsilon), 0));
  } else {
    const bool corrected = p.unbiased && s.count > 1;
    const double variance = corrected ? __dmul_rn(s.variance, s.count / (s.count - 1)) : s.variance;
    step_towards<Real>(p.moving_variance, channel, variance, decay);
  }
}

// By the last block: all channels, since the step is valid for all of them or for none.
template <typename Real>
__device__ __forceinline__ void update_state(const NormalizeParams &p) {
  __shared__ bool valid;
  if (thread_of_block() == 0) valid = step_is_valid(p.exchange, p.signature, p.control);
  __syncthreads();
  if (!valid) return;
  const double decay = p.cumulative ? 1.0 / (static_cast<double>(*p.updates) + 1.0) : p.decay;
  int steps = 0;
  for (int64_t channel = thread_of_block(); channel < p.geometry.channels; channel += kThreads) {
    const double *at = p.workspace.values + channel;
    const Statistics s = {__ldcg(at), __ldcg(at + p.geometry.channels), __ldcg(at + 2 * p.geometry.channels)};
    if (s.count == 0) continue;
    update_channel<Real>(p, channel, s, decay);
    steps = 1;
  }
  // Every thread has read `updates` before this.
  steps = __syncthreads_or(steps);
  if (steps && p.updates && thread_of_block() == 0) ++*p.updates;
}

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    normalize_kernel(const __grid_constant__ NormalizeParams p) {
  using Real = typename V::Real;
  __shared__ Transform<Real> tile[kTransformTiling.max_channels];
  const Share share = share_of<V>(p.geometry, this_place());
  const int slots = static_cast<int>(blockDim.x) * V::kChannels;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * slots + thread_of_block();
  if (thread_of_block() < slots && channel < p.geometry.channels) {
    const Real gamma = parameter<Real>(p.gamma, channel, 1);
    const Real beta = parameter<Real>(p.beta, channel, 0);
    tile[thread_of_block()] =
        transform_of<Real>(normalization_of<Real>(p, channel), gamma, beta, p.adjust_scale != nullptr);
  }
  __syncthreads();

  Transform<Real> transforms[V::kChannels];
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) transforms[c] = tile[share.lane * V::kChannels + c];
  Cursor<V> cursor(p.geometry, share);
  int64_t left = share.count;
  for (; left >= kUnits<V>; left -= kUnits<V>) transform_units<V>(transforms, p, cursor, kUnits<V>);
  if (left > 0) transform_units<V>(transforms, p, cursor, static_cast<int>(left));

  if (p.statistics == SYNCBN_BATCH && is_last_block(p.workspace.tickets + kNormalizeTicket, gridDim.x * gridDim.y)) {
    update_state<Real>(p);
  }
}

struct NormalizeKernels {
  static constexpr Tiling kTiling = kTransformTiling;
  template <typename V>
  static auto of() {
    return normalize_kernel<V>;
  }
};

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_normalize(const syncbn_normalize_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  const syncbn_address relu_mask = args->relu ? args->relu_mask : 0;
  const Plan plan = plan_of(NormalizeKernels::kTiling, args->dtype, shape_of(*args), {}, args->adjust_scale != 0,
                            {args->x, args->y, args->residual}, relu_mask);
  NormalizeParams p = {};
  p.x = pointer<const void>(args->x);
  p.residual = pointer<const void>(args->residual);
  p.adjust_scale = pointer<const void>(args->adjust_scale);
  p.adjust_bias = pointer<const void>(args->adjust_bias);
  p.y = pointer<void>(args->y);
  p.relu_mask = pointer<uint8_t>(relu_mask);
  p.gamma = pointer<const void>(args->gamma);
  p.beta = pointer<const void>(args->beta);
  p.moving_mean = pointer<void>(args->moving_mean);
  p.moving_variance = pointer<void>(args->moving_variance);
  p.saved = pointer<double>(args->saved);
  p.epsilon = args->epsilon;
  p.geometry = plan.geometry;
  p.statistics = args->statistics;
  p.relu = args->relu != 0;
  p.unbiased = args->unbiased != 0;
  p.cumulative = args->cumulative != 0;
  p.exchange = rows_of(args->rows, kForwardRowHead, args->channels, args->channel_counts != 0, args->world_size);
  p.signature = args->signature;
  p.decay = args->decay;
  p.renorm = {args->renorm != 0,
              args->renorm_decay,
              args->r_min,
              args->r_max,
              args->d_max,
              pointer<void>(args->moving_stddev),
              pointer<void>(args->renorm_mean),
              pointer<void>(args->renorm_stddev)};
  p.updates = pointer<int64_t>(args->updates);
  p.control = pointer<syncbn_control>(args->control);
  p.workspace = workspace_at(args->workspace);
  return enqueue("normalize", choose<NormalizeKernels>(plan), plan.shape, args->stream, p);
}
