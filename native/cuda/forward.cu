// stats.cu and normalize.cu in one launch, for a replica that is alone: the statistics of x, y from them, and the
// state's step. x is read from memory once; between its two uses it is in registers and shared memory.
//
// in, out, i/o  as in stats.cu and normalize.cu, without mask and adjustment, and with one rank's rows
//
// Algorithm  A thread adds up the units of stats.cu in the order of stats.cu and keeps them; the tree is that of
//            stats.cu. The block that has a tile's moments writes the tile's part of the row and opens the tile's gate;
//            then every block of the tile does as in normalize.cu with what its threads have kept.
// Launch     the grid and blocks of stats.cu, two blocks a multiprocessor. Where tiles have several blocks it is
//            cooperative: all blocks, at most 264, are on the device at a time.
// Traffic    reads x once, as its last use in the forward pass, and what else is given; writes y once, left in the
//            cache for the next layer, and the mask. 64 KB of x in flight a multiprocessor.
// On chip    a thread keeps 96 to 128 bytes in registers and the rest in shared memory: on an H100
//            27 MB to 37 MB of x (docs/tuning.md).
// Designed   for whole 16-byte units of rows; for whole 16-byte units, units of 4 elements, and single elements of
//            planes. float32, float16 and bfloat16. There is no variant for what is not aligned.
// Result     deterministic: the bits of stats.cu and normalize.cu.
// Index      64-bit, though what fits is small.
#include "normalize.cuh"
#include "one_launch.cuh"
#include "stats.cuh"

namespace syncbn {
namespace {

struct ForwardParams {
  StatsParams stats;
  NormalizeParams normalize;
  int slots;
};

// Finds the statistics of this block's tile, which are in its row when this returns, and keeps x.
template <typename V>
__device__ __forceinline__ void find_statistics(const StatsParams &p, const Share &share, Chip<V, 1> &chip) {
  const Gate gate(p.workspace);
  const Origin<V> origin = find_origin<V>(p, share);
  Moments<V> result = accumulate<V>(p, share, origin, chip);
  if (reduce_tile<V, MergeMoments, true>(result, p.geometry, share, p.workspace)) {
    write_statistics<V>(p, share, origin, result);
    gate.open();
  } else {
    gate.pass();
  }
}

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    forward_kernel(const __grid_constant__ ForwardParams p) {
  using Real = typename V::Real;
  using Kept = Chip<V, 1>;
  const Share share = share_of<V>(p.stats.geometry, this_place());
  Kept chip(p.slots);
  find_statistics<V>(p.stats, share, chip);
  Transform<Real> transforms[V::kChannels];
  find_transforms<V>(p.normalize, share, transforms);
  Cursor<V> cursor(p.normalize.geometry, share);
  const int count = static_cast<int>(share.count);
  transform_units<Kept::kHeld, V>(transforms, p.normalize, cursor, min(count, Kept::kHeld), typename Kept::Held{chip});
  for (int at = Kept::kHeld; at < count; at += Kept::kInFlight) {
    transform_units<Kept::kInFlight, V>(transforms, p.normalize, cursor, min(count - at, Kept::kInFlight),
                                        typename Kept::Stored{chip, at - Kept::kHeld});
  }
  finish_step<Real>(p.normalize);
}

struct ForwardKernels {
  static constexpr Tiling kTiling = kReduceTiling;
  static constexpr int kTensors = 1;
  template <typename V>
  static auto of() -> void (*)(ForwardParams) {
    if constexpr (kKeeps<V>) {
      return forward_kernel<V>;
    } else {
      return nullptr;
    }
  }
};

int one_launch(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize, OneLaunch &one) {
  if (const int status = check(stats, last_error())) return status;
  if (const int status = check(normalize, last_error())) return status;
  Requirements r(last_error());
  r.require(normalize->statistics == SYNCBN_BATCH, SYNCBN_INVALID_ARGUMENT, "statistics is %d; it must be SYNCBN_BATCH",
            normalize->statistics);
  require_same_step(r, *stats, *normalize);
  require_same(r, "channel_counts", stats->channel_counts, normalize->channel_counts);
  require_same(r, "workspace", static_cast<int64_t>(stats->workspace), static_cast<int64_t>(normalize->workspace));
  if (!r.hold() || stats->mask != 0 || normalize->adjust_scale != 0) return r.status();
  const Plan plan =
      plan_of(ForwardKernels::kTiling, stats->dtype, shape_of(*stats), {}, false,
              {normalize->x, normalize->y, normalize->residual}, normalize->relu ? normalize->relu_mask : 0);
  return find_one_launch<ForwardKernels>(plan, one);
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_forward_on_chip(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize,
                                    int64_t *bytes) {
  using namespace syncbn;
  OneLaunch one;
  const int status = one_launch(stats, normalize, one);
  *bytes = one.bytes_on_chip;
  return status;
}

int32_t syncbn_cuda_forward(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize) {
  using namespace syncbn;
  OneLaunch one;
  if (const int status = one_launch(stats, normalize, one)) return status;
  if (one.bytes_on_chip == 0) {
    const int32_t status = syncbn_cuda_stats(stats);
    return status == SYNCBN_OK ? syncbn_cuda_normalize(normalize) : status;
  }
  ForwardParams p = {params_of(*stats, one.plan), params_of(*normalize, one.plan), one.slots};
  p.normalize.exchange.known_count = static_cast<double>(normalize->outer * normalize->inner);
  return enqueue("forward", choose<ForwardKernels>(one.plan), one.plan.shape, normalize->stream, p);
}
