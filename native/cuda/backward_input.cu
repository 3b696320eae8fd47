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
#include "backward_input.cuh"

namespace syncbn {
namespace {

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    backward_input_kernel(const __grid_constant__ BackwardInputParams p) {
  using Real = typename V::Real;
  const Share share = share_of<V>(p.geometry, this_place());
  Coefficients<Real> coefficients[V::kChannels];
  find_coefficients<V>(p, share, coefficients);
  using T = typename V::Element;
  using Inputs = InMemory<V, 2>;
  const Inputs inputs = {{static_cast<const T *>(p.x), static_cast<const T *>(p.dy)}};
  Cursor<V, Way::kBackward> cursor(p.geometry, share);
  constexpr int kUnits = Inputs::kUnits;
  int64_t left = share.count;
  for (; left >= kUnits; left -= kUnits) {
    transform_units<kUnits, V>(coefficients, p, cursor, kUnits, inputs);
  }
  if (left > 0) transform_units<kUnits, V>(coefficients, p, cursor, static_cast<int>(left), inputs);
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
  return enqueue("backward_input", choose<BackwardInputKernels>(plan), plan.shape, args->stream,
                 params_of(*args, plan));
}
