// What does every entry point do around its kernel? Keeps the thread's last error, turns addresses into pointers,
// chooses the variant of the kernel, and launches.
#ifndef SYNCBN_ENTRY_CUH
#define SYNCBN_ENTRY_CUH

#include <initializer_list>

#include "common/check.h"
#include "rows.cuh"
#include "transform.cuh"

namespace syncbn {

// Of the calling thread.
Error &last_error();

template <typename T>
T *pointer(syncbn_address address) {
  return reinterpret_cast<T *>(address);
}

// What a launch is made of, besides its parameters.
struct Plan {
  int32_t dtype;
  Layout layout;
  int width;
  Access access;
  Geometry geometry;
  LaunchShape shape;
};

// tensors: addresses that units are loaded from or stored to; bytes: the same of uint8. special: there is a mask or an
// adjustment.
inline Plan plan_of(const Tiling &tiling, int32_t dtype, const Shape &given, const Strides &mask, bool special,
                    std::initializer_list<syncbn_address> tensors, syncbn_address bytes) {
  const Shape empty = {0, given.channels, 1};
  const Shape &shape = has_elements(given.outer, given.inner) ? given : empty;
  const auto aligned = [&](int width) {
    bool all = bytes % static_cast<uint64_t>(width) == 0;
    for (const syncbn_address address : tensors) {
      all = all && address % static_cast<uint64_t>(width * element_size(dtype)) == 0;
    }
    return all;
  };
  const auto suits = [&](int width) { return units_fit(width, shape) && (tiling.adds || aligned(width)); };
  Plan plan;
  plan.dtype = dtype;
  plan.layout = layout_of(shape);
  plan.width = special ? 1 : widest_unit(element_size(dtype));
  while (plan.width > 1 && !suits(plan.width)) plan.width = narrower_unit(plan.width);
  plan.access = special ? Access::kSpecial : plan.width > 1 && aligned(plan.width) ? Access::kWhole : Access::kSingle;
  plan.shape = launch_shape(tiling, plan.width, shape);
  plan.geometry = geometry_of(plan.width, shape, mask, plan.shape.block.y);
  return plan;
}

// Kernels::of<V>() is the kernel of a variant; all have one type. Only kernels that add up have variants that load wide
// units one by one: the others take narrower units.
template <typename Kernels, typename T, Layout kLayout, int kWidth>
auto choose_access(const Plan &plan) {
  if constexpr (kWidth == 1) {
    return plan.access == Access::kSpecial ? Kernels::template of<Variant<T, kLayout, 1, Access::kSpecial>>()
                                           : Kernels::template of<Variant<T, kLayout, 1, Access::kSingle>>();
  } else if constexpr (Kernels::kTiling.adds) {
    return plan.access == Access::kWhole ? Kernels::template of<Variant<T, kLayout, kWidth, Access::kWhole>>()
                                         : Kernels::template of<Variant<T, kLayout, kWidth, Access::kSingle>>();
  } else {
    return Kernels::template of<Variant<T, kLayout, kWidth, Access::kWhole>>();
  }
}

template <typename Kernels, typename T, Layout kLayout>
auto choose_width(const Plan &plan) {
  constexpr int kWidest = widest_unit(sizeof(T));
  constexpr int kNarrower = narrower_unit(kWidest);
  if (plan.width == kWidest) return choose_access<Kernels, T, kLayout, kWidest>(plan);
  if (plan.width == kNarrower) return choose_access<Kernels, T, kLayout, kNarrower>(plan);
  return choose_access<Kernels, T, kLayout, 1>(plan);
}

template <typename Kernels, typename T>
auto choose_layout(const Plan &plan) {
  return plan.layout == Layout::kRows ? choose_width<Kernels, T, Layout::kRows>(plan)
                                      : choose_width<Kernels, T, Layout::kPlanes>(plan);
}

template <typename Kernels>
auto choose(const Plan &plan) {
  switch (plan.dtype) {
    case SYNCBN_FLOAT16:
      return choose_layout<Kernels, __half>(plan);
    case SYNCBN_BFLOAT16:
      return choose_layout<Kernels, __nv_bfloat16>(plan);
    case SYNCBN_FLOAT64:
      return choose_layout<Kernels, double>(plan);
    default:
      return choose_layout<Kernels, float>(plan);
  }
}

template <typename Params>
int enqueue(const char *operation, void (*kernel)(Params), const LaunchShape &shape, syncbn_address stream,
            const Params &params) {
  const cudaError_t error = launch(kernel, shape.grid, shape.block, reinterpret_cast<cudaStream_t>(stream), params,
                                   shape.shared, shape.together);
  if (error == cudaSuccess) return SYNCBN_OK;
  return fail(last_error(), SYNCBN_DEVICE_ERROR, "%s: %s (%s)", operation, cudaGetErrorString(error),
              cudaGetErrorName(error));
}

// What the rows of these arguments look like.
inline Rows rows_of(syncbn_address address, int64_t head, int64_t channels, bool channel_counts, int world_size) {
  return {
      pointer<double>(address), head + (channel_counts ? 3 : 2) * channels, head, channels, channel_counts, world_size};
}

template <typename Args>
Shape shape_of(const Args &args) {
  return {args.outer, args.channels, args.inner};
}

template <typename Args>
bool is_streamed(const Args &args) {
  return args.outer * args.channels * args.inner * element_size(args.dtype) > kStreamedBytes;
}

template <typename Args>
Strides mask_strides_of(const Args &args) {
  if (args.mask == 0) return {};
  return {args.mask_outer_stride, args.mask_channel_stride, args.mask_inner_stride};
}

}  // namespace syncbn

#endif
