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
#include "normalize.cuh"

namespace syncbn {
namespace {

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    normalize_kernel(const __grid_constant__ NormalizeParams p) {
  using Real = typename V::Real;
  const Share share = share_of<V>(p.geometry, this_place());
  Transform<Real> transforms[V::kChannels];
  find_transforms<V>(p, share, transforms);
  using Inputs = InMemory<V, 1>;
  const Inputs x = {{static_cast<const typename V::Element *>(p.x)}};
  Cursor<V, Way::kBackward> cursor(p.geometry, share);
  constexpr int kUnits = Inputs::kUnits;
  int64_t left = share.count;
  for (; left >= kUnits; left -= kUnits) {
    transform_units<kUnits, V>(transforms, p, cursor, kUnits, x);
  }
  if (left > 0) transform_units<kUnits, V>(transforms, p, cursor, static_cast<int>(left), x);
  finish_step<Real>(p);
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
  return enqueue("normalize", choose<NormalizeKernels>(plan), plan.shape, args->stream, params_of(*args, plan));
}
