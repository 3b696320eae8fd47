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
  bool special;
  Geometry geometry;
  LaunchShape shape;
};

// tensors: addresses that units are loaded from or stored to; bytes: the same of uint8. special: there is a mask or an
// adjustment.
inline Plan plan_of(const Tiling &tiling, int32_t dtype, const Shape &given, const Strides &mask, bool special,
                    std::initializer_list<syncbn_address> tensors, syncbn_address bytes) {
  const Shape empty = {0, given.channels, 1};
  const Shape &shape = has_elements(given.outer, given.inner) ? given : empty;
  const bool quads = dtype != SYNCBN_FLOAT64 && quads_fit(shape);
  bool aligned = bytes % 4 == 0;
  for (const syncbn_address address : tensors) {
    aligned = aligned && address % static_cast<uint64_t>(4 * element_size(dtype)) == 0;
  }
  Plan plan;
  plan.dtype = dtype;
  plan.layout = layout_of(shape);
  plan.width = quads ? 4 : 1;
  plan.special = special || (quads && !aligned);
  plan.shape = launch_shape(tiling, plan.width, shape);
  plan.geometry = geometry_of(plan.width, shape, mask, plan.shape.block.y);
  return plan;
}

// Kernels::of<V>() is the kernel of a variant; all have one type.
template <typename Kernels, typename T, int kWidth>
auto choose_of(const Plan &plan) {
  if (plan.layout == Layout::kRows) {
    return plan.special ? Kernels::template of<Variant<T, Layout::kRows, kWidth, true>>()
                        : Kernels::template of<Variant<T, Layout::kRows, kWidth, false>>();
  }
  return plan.special ? Kernels::template of<Variant<T, Layout::kPlanes, kWidth, true>>()
                      : Kernels::template of<Variant<T, Layout::kPlanes, kWidth, false>>();
}

template <typename Kernels, typename T>
auto choose_width(const Plan &plan) {
  return plan.width == 4 ? choose_of<Kernels, T, 4>(plan) : choose_of<Kernels, T, 1>(plan);
}

template <typename Kernels>
auto choose(const Plan &plan) {
  switch (plan.dtype) {
    case SYNCBN_FLOAT16:
      return choose_width<Kernels, __half>(plan);
    case SYNCBN_BFLOAT16:
      return choose_width<Kernels, __nv_bfloat16>(plan);
    case SYNCBN_FLOAT64:
      return choose_of<Kernels, double, 1>(plan);
    default:
      return choose_width<Kernels, float>(plan);
  }
}

template <typename Params>
int enqueue(const char *operation, void (*kernel)(Params), const LaunchShape &shape, syncbn_address stream,
            const Params &params) {
  const cudaError_t error = launch(kernel, shape.grid, shape.block, reinterpret_cast<cudaStream_t>(stream), params);
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
Strides mask_strides_of(const Args &args) {
  if (args.mask == 0) return {};
  return {args.mask_outer_stride, args.mask_channel_stride, args.mask_inner_stride};
}

}  // namespace syncbn

#endif
