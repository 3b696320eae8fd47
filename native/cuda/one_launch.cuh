// Can the current device keep a step's tensors on its chip between the two halves of the step, and how is that
// launched?
//
// The launch has the grid, the shares and the tree of the kernels that add up, so that it finds the very bits of two
// launches. Two blocks share a multiprocessor, each with half of its shared memory.
#ifndef SYNCBN_ONE_LAUNCH_CUH
#define SYNCBN_ONE_LAUNCH_CUH

#include "chip.cuh"
#include "entry.cuh"

namespace syncbn {

// The variants that keep their units: 16 bytes of a row; 16 bytes, 4 elements or one of a plane.
template <typename V>
constexpr bool kKeeps = sizeof(typename V::Real) == 4 && !V::kSpecial &&
                        (V::kLayout == Layout::kRows
                             ? V::kWhole && V::kWidth == widest_unit(sizeof(typename V::Element))
                             : V::kWhole || V::kWidth == 1);

struct OneLaunch {
  Plan plan;
  int slots = 0;              // units of each tensor that a thread has in shared memory
  int64_t bytes_on_chip = 0;  // of the units of all threads; 0: not on this device
};

// Of a block: what is neither the units' nor the reduction's columns is below this.
constexpr int64_t kOtherShared = 2048;
// Of a block: the system's part.
constexpr int64_t kSystemShared = 1024;

// The values that a channel's partial result has, and the bytes of the block's columns for it.
constexpr int64_t kValuesKept = 2;
inline int64_t column_bytes(int channels_of_thread) { return (1 + kValuesKept * channels_of_thread) * kThreads * 8; }

// Of kTensors tensors, on a device that has so much.
template <int kTensors>
OneLaunch one_launch_of(const Plan &plan, int multiprocessors, int shared_of_multiprocessor) {
  OneLaunch one;
  one.plan = plan;
  const dim3 &grid = plan.shape.grid;
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y;
  const bool together = grid.y > 1;
  if (together && blocks > static_cast<int64_t>(multiprocessors) * kBlocksOfMultiprocessor) return one;
  const int64_t size = element_size(plan.dtype);
  const int channels = plan.layout == Layout::kRows ? plan.width : 1;  // of a thread
  const int64_t held = units_held(units_in_flight(plan.width, size, plan.access, kTensors), channels, kTensors);
  const int64_t of_block = (plan.geometry.units + grid.y - 1) / grid.y;
  const int64_t of_thread = (of_block + plan.shape.block.y - 1) / plan.shape.block.y;
  const int64_t slots = of_thread > held ? of_thread - held : 0;
  const int64_t slot = kTensors * plan.width * size * kThreads;  // bytes of a block
  const int64_t room =
      shared_of_multiprocessor / kBlocksOfMultiprocessor - kSystemShared - kOtherShared - column_bytes(channels);
  if (slots > room / slot) return one;
  one.slots = static_cast<int>(slots);
  one.bytes_on_chip = (held + slots) * slot * blocks;
  one.plan.shape.shared = static_cast<size_t>(slots * slot);
  one.plan.shape.together = together;
  return one;
}

// On the current device. `one` stays as it is if there is no such variant of the kernel.
template <typename Kernels>
int find_one_launch(const Plan &plan, OneLaunch &one) {
  if (!choose<Kernels>(plan)) return SYNCBN_OK;
  int device = 0;
  int multiprocessors = 0;
  int shared = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    return fail(last_error(), SYNCBN_DEVICE_ERROR, "the size of the device: %s (%s)", cudaGetErrorString(error),
                cudaGetErrorName(error));
  }
  one = one_launch_of<Kernels::kTensors>(plan, multiprocessors, shared);
  return SYNCBN_OK;
}

inline void require_same(Requirements &r, const char *name, int64_t first, int64_t second) {
  r.require(first == second, SYNCBN_INVALID_ARGUMENT, "%s is 0x%llx and 0x%llx; both halves of a step have the same",
            name, static_cast<unsigned long long>(first), static_cast<unsigned long long>(second));
}

// Of the arguments of the two halves of a step, each of them checked.
template <typename First, typename Second>
void require_same_step(Requirements &r, const First &first, const Second &second) {
  r.require(first.world_size == 1 && second.world_size == 1, SYNCBN_INVALID_ARGUMENT,
            "world_size is %d and %d; it must be 1: there is no exchange", first.world_size, second.world_size);
  require_same(r, "dtype", first.dtype, second.dtype);
  require_same(r, "outer", first.outer, second.outer);
  require_same(r, "channels", first.channels, second.channels);
  require_same(r, "inner", first.inner, second.inner);
  require_same(r, "x", static_cast<int64_t>(first.x), static_cast<int64_t>(second.x));
  require_same(r, "rows", static_cast<int64_t>(first.rows), static_cast<int64_t>(second.rows));
  require_same(r, "stream", static_cast<int64_t>(first.stream), static_cast<int64_t>(second.stream));
}

}  // namespace syncbn

#endif
