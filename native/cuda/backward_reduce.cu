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
#include "backward_reduce.cuh"

namespace syncbn {
namespace {

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    backward_reduce_kernel(const __grid_constant__ BackwardReduceParams p) {
  const Share share = share_of<V>(p.geometry, this_place());
  KeepNothing<V, 2> keeper;
  Sums<V> sums = accumulate<V>(p, share, keeper);
  if (!reduce_tile<V, AddSums, false>(sums, p.geometry, share, p.workspace)) return;
  write_sums<V>(p, share, sums);
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
  return enqueue("backward_reduce", choose<BackwardReduceKernels>(plan), plan.shape, args->stream,
                 params_of(*args, plan));
}
