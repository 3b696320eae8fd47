// dx = gamma * r / sigma * (A * g - s / n - xhat * t / n), xhat = (x - mean) / sigma, s and t the sums of A * g and of
// A * g * xhat, and n, over all ranks; after an inference forward, and for an element that does not count, dx = gamma *
// r / sigma * A * g. g is dy, behind a ReLU 0 where v was not above 0; A is the adjustment's scale, or 1.
//
// in   x            [outer, channels, inner] float32, float16, bfloat16 or float64, dense; training or ReLU only
//      dy           the same
//      gamma, beta  [channels] parameters, or null: 1 and 0; beta for a ReLU, to find v again
//      saved        [5][channels] float64: n, mean, 1 / sigma, r, d, from normalize
//      exchange     training: backward rows (rows.cuh), what backward_reduce wrote, summed over the ranks
//      mask         uint8, strided, or null: 0 where an element does not count
//      adjustment   two tensors of parameters in the shape of x, or null
// out  dx           [outer, channels, inner]; may be dy
//
// Algorithm  Every block adds up the sums for its channels in float64 in the order of the ranks, and works on elements
//            in float32 (float64 for float64): dx = scale * (((A * g - mean_g) + slope * (x - mean)) + rest), where
//            mean and mean_g are rounded and rest is what that leaves, so that A * g - mean_g and x - mean lose no
//            digits. One thread of the launch reports a row of another step.
// Launch     rows: block (1 .. 32, 256 .. 8), grid (channels / (32 .. 128), unit blocks), 128 being what units of 4 and
//            8 elements have; planes: block (1 .. 8, 256 .. 32), grid (channels / (1 .. 8), unit blocks). At most 264
//            blocks, or one a tile of channels; two fit a multiprocessor: one wave, since every block adds up the rows.
// Traffic    reads x (training or ReLU), dy and what else is given once, as their last use; writes dx once, left in the
//            cache for the layer before. 64 KB of x and dy in flight a multiprocessor.
// Designed   for rows (channels) or runs (inner) of whole 16-byte units and tensors aligned to 16 bytes; narrower units
//            where shape or alignment asks for them: 8, 4 or 1 elements of 2 bytes, 4 or 1 of 4 bytes, 2 or 1 of 8.
//            Right for all others; a mask or an adjustment takes 1.
// Result     deterministic.
// Index      64-bit: outer * channels * inner may exceed 2^31.
#include "entry.cuh"

namespace syncbn {
namespace {

template <typename V>
constexpr int kUnits = units_in_flight<V>(2);

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

// Up to kUnits units of a thread; moves the cursor past them.
template <typename V>
__device__ __forceinline__ void transform_units(const Coefficients<typename V::Real> (&coefficients)[V::kChannels],
                                                const BackwardInputParams &p, Cursor<V> &cursor, int units) {
  using T = typename V::Element;
  using Real = typename V::Real;
  const Adjustment<Real> adjustment = {static_cast<const Real *>(p.adjust_scale),
                                       static_cast<const Real *>(p.adjust_bias)};
  const bool reads_x = p.training || p.relu;
  Packed<V> x[kUnits<V>];
  Packed<V> dy[kUnits<V>];
  Bits counts[kUnits<V>];
  Adjusting<V> adjusting[kUnits<V>];
  Cursor<V> ahead = cursor;
#pragma unroll
  for (int k = 0; k < kUnits<V>; ++k) {
    x[k] = dy[k] = {};
    counts[k] = kAllBits;
    if (k < units) {
      if (reads_x) x[k] = load_unit<V, LastUse>(static_cast<const T *>(p.x) + ahead.offset);
      dy[k] = load_unit<V, LastUse>(static_cast<const T *>(p.dy) + ahead.offset);
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
      store_unit<V>(static_cast<T *>(p.dx) + cursor.offset, dx);
    }
    cursor.advance(p.geometry);
  }
}

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    backward_input_kernel(const __grid_constant__ BackwardInputParams p) {
  using Real = typename V::Real;
  __shared__ Coefficients<Real> tile[kTransformTiling.max_channels];
  const Share share = share_of<V>(p.geometry, this_place());
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

  Coefficients<Real> coefficients[V::kChannels];
#pragma unroll
  for (int c = 0; c < V::kChannels; ++c) coefficients[c] = tile[share.lane * V::kChannels + c];
  Cursor<V> cursor(p.geometry, share);
  int64_t left = share.count;
  for (; left >= kUnits<V>; left -= kUnits<V>) transform_units<V>(coefficients, p, cursor, kUnits<V>);
  if (left > 0) transform_units<V>(coefficients, p, cursor, static_cast<int>(left));
}

struct BackwardInputKernels {
  static constexpr Tiling kTiling = kTransformTiling;
  template <typename V>
  static auto of() {
    return backward_input_kernel<V>;
  }
};

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_backward_input(const syncbn_backward_input_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  const Plan plan = plan_of(BackwardInputKernels::kTiling, args->dtype, shape_of(*args), mask_strides_of(*args),
                            args->mask != 0 || args->adjust_scale != 0, {args->x, args->dy, args->dx}, 0);
  BackwardInputParams p;
  p.x = pointer<const void>(args->x);
  p.dy = pointer<const void>(args->dy);
  p.mask = pointer<const uint8_t>(args->mask);
  p.adjust_scale = pointer<const void>(args->adjust_scale);
  p.adjust_bias = pointer<const void>(args->adjust_bias);
  p.dx = pointer<void>(args->dx);
  p.gamma = pointer<const void>(args->gamma);
  p.beta = pointer<const void>(args->beta);
  p.saved = pointer<const double>(args->saved);
  p.geometry = plan.geometry;
  p.relu = args->relu != 0;
  p.training = args->training != 0;
  p.exchange = rows_of(args->rows, kBackwardRowHead, args->channels, false, args->world_size);
  p.signature = args->signature;
  p.control = pointer<syncbn_control>(args->control);
  return enqueue("backward_input", choose<BackwardInputKernels>(plan), plan.shape, args->stream, p);
}
