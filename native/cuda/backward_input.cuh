// How does a channel's gradient become dx? For the kernels that write it: backward_input.cu says how, backward.cu does
// it with elements that it has kept.
#ifndef SYNCBN_BACKWARD_INPUT_CUH
#define SYNCBN_BACKWARD_INPUT_CUH

#include "chip.cuh"
#include "entry.cuh"

namespace syncbn {

struct BackwardInputParams {
  const void *x;
  const void *dy;
  const uint8_t *mask;
  const void *adjust_scale;
  const void *adjust_bias;
  void *dx;
  const void *gamma;
  const void *beta;
  const double *saved;
  Geometry geometry;
  bool relu;
  bool streamed;  // dx
  // Training only.
  bool training;
  Rows exchange;
  double signature;
  syncbn_control *control;
};

// Of a channel.
template <typename Real>
struct Gradient {
  Real scale;
  // Training only.
  Real mean_g;
  Real slope;
  Real rest;
};

template <typename Real>
__device__ __forceinline__ Gradient<Real> gradient_of(const BackwardInputParams &p, int64_t channel,
                                                      const Normalization &n, Real gamma) {
  Gradient<Real> result = {static_cast<Real>(n.inverse_sigma * n.r * gamma), 0, 0, 0};
  const double count = p.saved[channel];
  if (!p.training || count == 0) return result;
  double sum = 0;
  double product = 0;
  for (int rank = 0; rank < p.exchange.world_size; ++rank) {
    sum += p.exchange.part(0, rank)[channel];
    product += p.exchange.part(1, rank)[channel];
  }
  const double mean_g = sum / count;
  const double slope = -n.inverse_sigma * (product / count);
  result.mean_g = static_cast<Real>(mean_g);
  result.slope = static_cast<Real>(slope);
  result.rest = static_cast<Real>(fused(-slope, n.mean - static_cast<Real>(n.mean), result.mean_g - mean_g));
  return result;
}

template <typename Real>
struct Coefficients {
  Gradient<Real> gradient;
  Transform<Real> transform;
};

// Up to kUnits units of a thread, of which x and dy come from the source; moves the cursor past them.
template <int kUnits, typename V, Way kWay, typename Source>
__device__ __forceinline__ void transform_units(const Coefficients<typename V::Real> (&coefficients)[V::kChannels],
                                                const BackwardInputParams &p, Cursor<V, kWay> &cursor, int units,
                                                const Source &source) {
  using T = typename V::Element;
  using Real = typename V::Real;
  const Adjustment<Real> adjustment = {static_cast<const Real *>(p.adjust_scale),
                                       static_cast<const Real *>(p.adjust_bias)};
  const bool reads_x = p.training || p.relu;
  Packed<V> x[kUnits];
  Packed<V> dy[kUnits];
  Bits counts[kUnits];
  Adjusting<V> adjusting[kUnits];
  Cursor<V, kWay> ahead = cursor;
#pragma unroll
  for (int k = 0; k < kUnits; ++k) {
    x[k] = dy[k] = {};
    counts[k] = kAllBits;
    if (k < units) {
      if (reads_x) x[k] = source.load(0, ahead.offset, k);
      dy[k] = source.load(1, ahead.offset, k);
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
      const Unit<V> gradients = unpack<V>(dy[k]);
      Unit<V> dx;
#pragma unroll
      for (int j = 0; j < V::kWidth; ++j) {
        const Gradient<Real> &gradient = coefficients[V::channel_of(j)].gradient;
        const Transform<Real> &t = coefficients[V::channel_of(j)].transform;
        const Real value = computed(inputs.v[j]);
        Real g = computed(gradients.v[j]);
        if (p.relu) {
          const Real v =
              V::kSpecial && adjustment.scale ? apply(t, value, adjusting[k].a[j], adjusting[k].b[j]) : apply(t, value);
          if (!(v > 0)) g = 0;
        }
        if constexpr (V::kSpecial) g *= adjusting[k].a[j];
        if (p.training && (!V::kSpecial || has_bit(counts[k], j))) {
          g = fused(gradient.slope, value - t.mean, g - gradient.mean_g) + gradient.rest;
        }
        round_to(dx.v[j], gradient.scale * g);
      }
      store_unit<V>(static_cast<T *>(p.dx) + cursor.offset, dx, p.streamed);
    }
    cursor.advance(p.geometry);
  }
}

// The coefficients of a block's channels, each found by one thread, of which every thread gets those of its own. One
// thread of the launch reports a row of another step.
template <typename V>
__device__ __forceinline__ void find_coefficients(const BackwardInputParams &p, const Share &share,
                                                  Coefficients<typename V::Real> (&coefficients)[V::kChannels]) {
  using Real = typename V::Real;
  __shared__ Coefficients<Real> tile[kTileChannels];
  const int thread = thread_of_block();
  const int slots = static_cast<int>(blockDim.x) * V::kChannels;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * slots + thread;
  // This thread has no channel to prepare: a block has at least twice as many threads as channels.
  if (p.training && blockIdx.x == 0 && blockIdx.y == 0 && thread == kThreads - 1) {
    step_is_valid(p.exchange, p.signature, p.control);
  }
  if (thread < slots && channel < p.geometry.channels) {
    const Normalization n = load_saved(p.saved, p.geometry.channels, channel);
    const Real gamma = parameter<Real>(p.gamma, channel, 1);
    const Real beta = parameter<Real>(p.beta, channel, 0);
    tile[thread] = {gradient_of<Real>(p, channel, n, gamma),
                    transform_of<Real>(n, gamma, beta, p.adjust_scale != nullptr)};
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) coefficients[c] = tile[share.lane * V::kChannels + c];
}

inline BackwardInputParams params_of(const syncbn_backward_input_args &args, const Plan &plan) {
  BackwardInputParams p;
  p.x = pointer<const void>(args.x);
  p.dy = pointer<const void>(args.dy);
  p.mask = pointer<const uint8_t>(args.mask);
  p.adjust_scale = pointer<const void>(args.adjust_scale);
  p.adjust_bias = pointer<const void>(args.adjust_bias);
  p.dx = pointer<void>(args.dx);
  p.gamma = pointer<const void>(args.gamma);
  p.beta = pointer<const void>(args.beta);
  p.saved = pointer<const double>(args.saved);
  p.geometry = plan.geometry;
  p.relu = args.relu != 0;
  p.streamed = is_streamed(args);
  p.training = args.training != 0;
  p.exchange = rows_of(args.rows, kBackwardRowHead, args.channels, false, args.world_size);
  p.signature = args.signature;
  p.control = pointer<syncbn_control>(args.control);
  return p;
}

}  // namespace syncbn

#endif
