// backward_reduce.cu and backward_input.cu in one launch, for a replica that is alone: the sums of g and g * xhat, the
// gradients of gamma and beta, and dx. x and dy are read from memory once; between their two uses x and g are in
// registers and shared memory.
//
// in, out  as in backward_reduce.cu and backward_input.cu after a training forward, without mask and adjustment, and
//          with one rank's rows
//
// Algorithm  A thread adds up the units of backward_reduce.cu in the order of backward_reduce.cu and keeps x and g; the
//            tree is that of backward_reduce.cu. The block that has a tile's sums writes the tile's part of the row and
//            opens the tile's gate; then every block of the tile does as in backward_input.cu with what its threads
//            have kept. So a ReLU is decided once.
// Launch     the grid and blocks of backward_reduce.cu, two blocks a multiprocessor. Where tiles have several blocks it
//            is cooperative: all blocks, at most 264, are on the device at a time.
// Traffic    reads x, dy and what else is given once, as their last use; writes dx once, left in the cache for the
//            layer before, dresidual and the gradients. 64 KB of x and dy in flight a multiprocessor.
// On chip    a thread keeps 96 to 128 bytes in registers and the rest in shared memory: on an H100
//            26 MB to 37 MB of x and dy together (docs/tuning.md).
// Designed   as forward.cu.
// Result     deterministic: the bits of backward_reduce.cu and backward_input.cu.
// Index      64-bit, though what fits is small.
#include "backward_input.cuh"
#include "backward_reduce.cuh"
#include "one_launch.cuh"

namespace syncbn {
namespace {

struct BackwardParams {
  BackwardReduceParams reduce;
  BackwardInputParams input;
  int slots;
};

// Finds the sums of this block's tile, which are in its row when this returns, and keeps x and g.
template <typename V>
__device__ __forceinline__ void find_sums(const BackwardReduceParams &p, const Share &share, Chip<V, 2> &chip) {
  const Gate gate(p.workspace);
  Sums<V> sums = accumulate<V>(p, share, chip);
  if (reduce_tile<V, AddSums, true>(sums, p.geometry, share, p.workspace)) {
    write_sums<V>(p, share, sums);
    gate.open();
  } else {
    gate.pass();
  }
}

template <typename V>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    backward_kernel(const __grid_constant__ BackwardParams p) {
  using Kept = Chip<V, 2>;
  const Share share = share_of<V>(p.reduce.geometry, this_place());
  Kept chip(p.slots);
  find_sums<V>(p.reduce, share, chip);
  Coefficients<typename V::Real> coefficients[V::kChannels];
  find_coefficients<V>(p.input, share, coefficients);
  Cursor<V> cursor(p.input.geometry, share);
  const int count = static_cast<int>(share.count);
  transform_units<Kept::kHeld, V>(coefficients, p.input, cursor, min(count, Kept::kHeld), typename Kept::Held{chip});
  for (int at = Kept::kHeld; at < count; at += Kept::kInFlight) {
    transform_units<Kept::kInFlight, V>(coefficients, p.input, cursor, min(count - at, Kept::kInFlight),
                                        typename Kept::Stored{chip, at - Kept::kHeld});
  }
}

struct BackwardKernels {
  static constexpr Tiling kTiling = kReduceTiling;
  static constexpr int kTensors = 2;
  template <typename V>
  static auto of() -> void (*)(BackwardParams) {
    if constexpr (kKeeps<V>) {
      return backward_kernel<V>;
    } else {
      return nullptr;
    }
  }
};

int one_launch(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input, OneLaunch &one) {
  if (const int status = check(reduce, last_error())) return status;
  if (const int status = check(input, last_error())) return status;
  Requirements r(last_error());
  r.require(input->training == 1, SYNCBN_INVALID_ARGUMENT, "training is 0; after inference there is nothing to reduce");
  require_same_step(r, *reduce, *input);
  require_same(r, "saved", static_cast<int64_t>(reduce->saved), static_cast<int64_t>(input->saved));
  const syncbn_address g = reduce->relu && !input->relu ? reduce->dresidual : reduce->dy;
  r.require(input->dy == g || input->dy == reduce->dresidual, SYNCBN_INVALID_ARGUMENT,
            "dy is 0x%llx; backward_reduce has dy at 0x%llx and dresidual at 0x%llx",
            static_cast<unsigned long long>(input->dy), static_cast<unsigned long long>(reduce->dy),
            static_cast<unsigned long long>(reduce->dresidual));
  if (!r.hold() || reduce->mask != 0 || input->mask != 0 || reduce->adjust_scale != 0) return r.status();
  const Plan plan =
      plan_of(BackwardKernels::kTiling, reduce->dtype, shape_of(*reduce), {}, false,
              {reduce->x, reduce->dy, reduce->dresidual, input->dx}, reduce->relu ? reduce->relu_mask : 0);
  return find_one_launch<BackwardKernels>(plan, one);
}

// g is what has been kept: the ReLU is behind it.
BackwardInputParams params_of_rest(const syncbn_backward_input_args &args, const Plan &plan) {
  BackwardInputParams p = params_of(args, plan);
  p.relu = false;
  return p;
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_backward_on_chip(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input,
                                     int64_t *bytes) {
  using namespace syncbn;
  OneLaunch one;
  const int status = one_launch(reduce, input, one);
  *bytes = one.bytes_on_chip;
  return status;
}

int32_t syncbn_cuda_backward(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input) {
  using namespace syncbn;
  OneLaunch one;
  if (const int status = one_launch(reduce, input, one)) return status;
  if (one.bytes_on_chip == 0) {
    const int32_t status = syncbn_cuda_backward_reduce(reduce);
    return status == SYNCBN_OK ? syncbn_cuda_backward_input(input) : status;
  }
  const BackwardParams p = {params_of(*reduce, one.plan), params_of_rest(*input, one.plan), one.slots};
  return enqueue("backward", choose<BackwardKernels>(one.plan), one.plan.shape, input->stream, p);
}
