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
#include "stats.cuh"

namespace syncbn {
namespace {

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    stats_kernel(const __grid_constant__ StatsParams p) {
  const Share share = share_of<V>(p.geometry, this_place());
  const Origin<V> origin = find_origin<V>(p, share);
  KeepNothing<V, 1> keeper;
  Moments<V> result = accumulate<V>(p, share, origin, keeper);
  if (!reduce_tile<V, MergeMoments, false>(result, p.geometry, share, p.workspace)) return;
  write_statistics<V>(p, share, origin, result);
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
  return enqueue("stats", choose<StatsKernels>(plan), plan.shape, args->stream, params_of(*args, plan));
}
