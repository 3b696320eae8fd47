// How does a channel normalize, what becomes of an element, and of the state? For the kernels that write y:
// normalize.cu says how, forward.cu does it with elements that it has kept.
#ifndef SYNCBN_NORMALIZE_CUH
#define SYNCBN_NORMALIZE_CUH

#include "chip.cuh"
#include "entry.cuh"

namespace syncbn {

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
  bool streamed;  // y
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

// Up to kUnits units of a thread, of which x comes from the source; moves the cursor past them.
template <int kUnits, typename V, Way kWay, typename Source>
__device__ __forceinline__ void transform_units(const Transform<typename V::Real> (&transforms)[V::kChannels],
                                                const NormalizeParams &p, Cursor<V, kWay> &cursor, int units,
                                                const Source &source) {
  using T = typename V::Element;
  using Real = typename V::Real;
  const Adjustment<Real> adjustment = {static_cast<const Real *>(p.adjust_scale),
                                       static_cast<const Real *>(p.adjust_bias)};
  Packed<V> x[kUnits];
  Packed<V> residual[kUnits];
  Adjusting<V> adjusting[kUnits];
  Cursor<V, kWay> ahead = cursor;
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
    x[k] = residual[k] = {};
    if (k < units) {
      x[k] = source.load(0, ahead.offset, k);
      if (p.residual) residual[k] = load_unit<V, LastUse>(static_cast<const T *>(p.residual) + ahead.offset);
      if (V::kSpecial && adjustment.scale) adjusting[k] = load_adjustment<V>(adjustment, ahead.offset);
    }
    ahead.advance(p.geometry);
  }
  cursor.forget_way();
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
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
      store_unit<V>(static_cast<T *>(p.y) + cursor.offset, y, p.streamed);
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

// The transforms of a block's channels, each found by one thread, of which every thread gets those of its own.
template <typename V>
__device__ __forceinline__ void find_transforms(const NormalizeParams &p, const Share &share,
                                                Transform<typename V::Real> (&transforms)[V::kChannels]) {
  using Real = typename V::Real;
  __shared__ Transform<Real> tile[kTileChannels];
  const int slots = static_cast<int>(blockDim.x) * V::kChannels;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * slots + thread_of_block();
  if (thread_of_block() < slots && channel < p.geometry.channels) {
    const Real gamma = parameter<Real>(p.gamma, channel, 1);
    const Real beta = parameter<Real>(p.beta, channel, 0);
    tile[thread_of_block()] =
        transform_of<Real>(normalization_of<Real>(p, channel), gamma, beta, p.adjust_scale != nullptr);
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) transforms[c] = tile[share.lane * V::kChannels + c];
}

// The end of a block.
template <typename Real>
__device__ __forceinline__ void finish_step(const NormalizeParams &p) {
  if (p.statistics == SYNCBN_BATCH && is_last_block(p.workspace.tickets + kNormalizeTicket, gridDim.x * gridDim.y)) {
    update_state<Real>(p);
  }
}

inline NormalizeParams params_of(const syncbn_normalize_args &args, const Plan &plan) {
  NormalizeParams p = {};
  p.x = pointer<const void>(args.x);
  p.residual = pointer<const void>(args.residual);
  p.adjust_scale = pointer<const void>(args.adjust_scale);
  p.adjust_bias = pointer<const void>(args.adjust_bias);
  p.y = pointer<void>(args.y);
  p.relu_mask = pointer<uint8_t>(args.relu ? args.relu_mask : 0);
  p.gamma = pointer<const void>(args.gamma);
  p.beta = pointer<const void>(args.beta);
  p.moving_mean = pointer<void>(args.moving_mean);
  p.moving_variance = pointer<void>(args.moving_variance);
  p.saved = pointer<double>(args.saved);
  p.epsilon = args.epsilon;
  p.geometry = plan.geometry;
  p.statistics = args.statistics;
  p.relu = args.relu != 0;
  p.streamed = is_streamed(args);
  p.unbiased = args.unbiased != 0;
  p.cumulative = args.cumulative != 0;
  p.exchange = rows_of(args.rows, kForwardRowHead, args.channels, args.channel_counts != 0, args.world_size);
  p.signature = args.signature;
  p.decay = args.decay;
  p.renorm = {args.renorm != 0,
              args.renorm_decay,
              args.r_min,
              args.r_max,
              args.d_max,
              pointer<void>(args.moving_stddev),
              pointer<void>(args.renorm_mean),
              pointer<void>(args.renorm_stddev)};
  p.updates = pointer<int64_t>(args.updates);
  p.control = pointer<syncbn_control>(args.control);
  p.workspace = workspace_at(args.workspace);
  return p;
}

}  // namespace syncbn

#endif
