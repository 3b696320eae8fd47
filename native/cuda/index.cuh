// Which elements does a thread work on?
//
// A dense tensor [outer, channels, inner] is seen in one of two layouts. kRows (inner = 1, channels-last): a row-major
// matrix whose columns are the channels; a thread's unit is 16 bytes of adjacent channels of a row, or less. kPlanes
// (inner > 1, channels-first): each channel has `outer` runs of `inner` adjacent elements; a unit is 16 bytes of a run,
// or less, all of one channel. In both, every channel has `units` units, blockIdx.x is the tile of channels and
// blockIdx.y the block of units. A block is 256 threads of shape (lanes, 256 / lanes): each lane is a thread's share of
// channels, and the threads of a lane take turns at its units. Adjacent threads are adjacent lanes in kRows, adjacent
// turns in kPlanes: adjacent in memory, in both.
//
// Everything here follows from the shape alone, never from the device: the same shape gives the same sums on every GPU.
// All of it can be called on the host, so that tests see indices past 2^31 without such a tensor.
#ifndef SYNCBN_INDEX_CUH
#define SYNCBN_INDEX_CUH

#include "element.cuh"

namespace syncbn {

constexpr int kThreads = 256;
constexpr int kMaxLanes = 32;  // kRows
constexpr int kMaxPlanes = 8;  // lanes in kPlanes: a warp has one channel

// In kPlanes a thread should have so many units before a block takes fewer channels: what a block does once is dear.
constexpr int kUnitsOfPlane = 16;

enum class Layout { kRows, kPlanes };

// How a kernel gets at the elements of a unit.
enum class Access {
  kWhole,   // all with one instruction: the host has seen to the alignment
  kSingle,  // one by one, whatever the alignment
  kSpecial  // one by one, in units of one; there may be a mask or an adjustment
};

// One compiled form of a kernel. kWidth is that of a unit, in elements.
template <typename T, Layout kLayoutOf, int kWidthOf, Access kAccessOf>
struct Variant {
  using Element = T;
  using Real = Compute<T>;
  static constexpr Layout kLayout = kLayoutOf;
  static constexpr int kWidth = kWidthOf;
  static constexpr Access kAccess = kAccessOf;
  static constexpr bool kWhole = kAccess == Access::kWhole;
  static constexpr bool kSpecial = kAccess == Access::kSpecial;
  static constexpr int kChannels = kLayout == Layout::kRows ? kWidth : 1;  // of a thread
  static constexpr int kElementsOfUnit = kWidth / kChannels;               // of one channel
  static_assert(!kSpecial || kWidth == 1, "masks and adjustments are read one by one");
  // Which of the thread's channels an element of a unit belongs to.
  static constexpr __host__ __device__ int channel_of(int j) { return kLayout == Layout::kRows ? j : 0; }
};

// Elements of 16 bytes, which is the most that an instruction moves.
constexpr int widest_unit(int64_t element_size) { return static_cast<int>(16 / element_size); }
// The next width that kernels are compiled for.
constexpr int narrower_unit(int width) { return width > 4 ? 4 : 1; }

struct Shape {
  int64_t outer;
  int64_t channels;
  int64_t inner;
};

inline Layout layout_of(const Shape &shape) { return shape.inner > 1 ? Layout::kPlanes : Layout::kRows; }

// Whether units of this width fill the tensor.
inline bool units_fit(int width, const Shape &shape) {
  return (layout_of(shape) == Layout::kRows ? shape.channels : shape.inner) % width == 0;
}

// Units of a channel.
inline int64_t units_of(int width, const Shape &shape) {
  return layout_of(shape) == Layout::kPlanes ? shape.outer * (shape.inner / width) : shape.outer;
}

// Steps of an index in elements.
struct Strides {
  int64_t outer;
  int64_t channel;
  int64_t inner;
};

// Where the units of a thread lie in a tensor of given strides.
struct Walk {
  Strides unit;  // outer: from a run to the next; inner: from a unit of a run to the next
  int64_t step;  // from a thread's unit to its next, but for
  int64_t wrap;  // what is added when that takes it out of the run
};

struct Geometry {
  int64_t channels;
  int64_t units;  // of each channel
  int64_t run;    // units of a run; kPlanes
  int64_t step;   // units by which a thread's next one lies further in its run; kPlanes
  Walk tensor;
  Walk mask;
};

// threads: blockDim.y.
inline Walk walk_of(Layout layout, int width, const Strides &strides, int64_t run, int64_t threads) {
  if (layout == Layout::kRows) return {strides, threads * strides.outer, 0};
  const Strides unit = {strides.outer, strides.channel, strides.inner * width};
  return {unit, threads / run * unit.outer + threads % run * unit.inner, unit.outer - run * unit.inner};
}

// A stride that is never taken may be anything.
inline Strides without_unused(const Strides &strides, const Shape &shape) {
  return {shape.outer > 1 ? strides.outer : 0, shape.channels > 1 ? strides.channel : 0,
          shape.inner > 1 ? strides.inner : 0};
}

inline Geometry geometry_of(int width, const Shape &shape, const Strides &mask, int64_t threads) {
  const Layout layout = layout_of(shape);
  const bool planes = layout == Layout::kPlanes;
  const int64_t run = planes ? shape.inner / width : 1;
  const Strides dense = {shape.channels * shape.inner, shape.inner, 1};
  return {shape.channels,
          units_of(width, shape),
          run,
          threads % run,
          walk_of(layout, width, dense, run, threads),
          walk_of(layout, width, without_unused(mask, shape), run, threads)};
}

// Two blocks for each multiprocessor of an H100, which is how many of them fit at a time: one wave.
constexpr int kBlocksOfMultiprocessor = 2;
constexpr int64_t kMaxBlocks = 132 * kBlocksOfMultiprocessor;

// How a kernel divides its work among blocks. A launch has at most kMaxBlocks blocks, or one a tile.
struct Tiling {
  int max_channels;  // of a tile in kRows
  int units;         // of a thread, before another block is worth its while
  bool adds;         // to sums, whose order and so the width of the units must not follow from the alignment
};

// Channels side by side in a block, in units: in kPlanes more than one where there is little work in a channel.
inline int lanes(const Tiling &tiling, int width, const Shape &shape) {
  int lanes = 1;
  if (layout_of(shape) == Layout::kPlanes) {
    const int64_t units = units_of(width, shape);
    while (lanes < kMaxPlanes && 2 * lanes <= shape.channels && units < kThreads / lanes * kUnitsOfPlane) lanes *= 2;
  } else {
    while (lanes < kMaxLanes && lanes * width < tiling.max_channels && lanes * width < shape.channels) lanes *= 2;
  }
  return lanes;
}

inline int64_t tile_count(const Tiling &tiling, int width, const Shape &shape) {
  const int x = lanes(tiling, width, shape);
  const int64_t tile = layout_of(shape) == Layout::kPlanes ? x : x * width;
  return (shape.channels + tile - 1) / tile;
}

// The most blocks that any number of units gets.
inline int64_t max_unit_blocks(const Tiling &tiling, int width, const Shape &shape) {
  const int64_t blocks = kMaxBlocks / tile_count(tiling, width, shape);
  return blocks > 1 ? blocks : 1;
}

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared = 0;      // bytes of dynamic shared memory
  bool together = false;  // cooperative: all blocks are on the device at a time
};

// At least one block, also without elements: the statistics and the state are written all the same.
inline LaunchShape launch_shape(const Tiling &tiling, int width, const Shape &shape) {
  const int x = lanes(tiling, width, shape);
  const int64_t units = units_of(width, shape);
  const int64_t step = static_cast<int64_t>(kThreads / x) * tiling.units;
  const int64_t steps = units / step + (units % step != 0);
  const int64_t limit = max_unit_blocks(tiling, width, shape);
  const int64_t blocks = steps < 1 ? 1 : steps < limit ? steps : limit;
  return {dim3(static_cast<unsigned>(tile_count(tiling, width, shape)), static_cast<unsigned>(blocks)),
          dim3(static_cast<unsigned>(x), static_cast<unsigned>(kThreads / x))};
}

// A block's share of the units: consecutive, and equal among blocks to within one.
struct Range {
  int64_t begin;
  int64_t count;
};

__host__ __device__ __forceinline__ Range range_of_block(int64_t units, int64_t block, int64_t blocks) {
  const int64_t share = units / blocks;
  const int64_t longer = units % blocks;  // blocks that have one unit more
  return {share * block + (block < longer ? block : longer), share + (block < longer ? 1 : 0)};
}

// The place of a thread in its launch.
struct Place {
  uint3 thread;
  uint3 block;
  dim3 block_size;
  dim3 grid_size;
};

// A thread's share: its units are first, first + blockDim.y, ...
struct Share {
  unsigned lane;    // below blockDim.x
  unsigned turn;    // below blockDim.y
  int64_t channel;  // the first of its channels
  bool exists;      // whether that is one of the tensor's: the last tile may be wider
  int64_t first;
  int64_t count;  // of its units
  int64_t turns;  // from one of them to the next
};

template <typename V>
__host__ __device__ __forceinline__ Share share_of(const Geometry &geometry, const Place &place) {
  const dim3 size = place.block_size;
  const unsigned thread = place.thread.y * size.x + place.thread.x;
  Share share;
  share.lane = V::kLayout == Layout::kRows ? place.thread.x : thread / size.y;
  share.turn = V::kLayout == Layout::kRows ? place.thread.y : thread % size.y;
  share.channel = (static_cast<int64_t>(place.block.x) * size.x + share.lane) * V::kChannels;
  share.exists = share.channel < geometry.channels;
  const Range range = range_of_block(geometry.units, place.block.y, place.grid_size.y);
  share.first = range.begin + share.turn;
  share.turns = size.y;
  share.count = share.exists ? (range.count + size.y - 1 - share.turn) / size.y : 0;
  return share;
}

// In which order a thread comes to its units. A second pass goes backward: what the first one read last is still
// cached.
enum class Way { kForward, kBackward };

// Where a thread's units lie, one after the other and without a division.
template <typename V, Way kWay = Way::kForward>
struct Cursor {
  int64_t offset;  // of the unit's first element, in the tensor
  int64_t mask;    // kSpecial: of its byte in the mask
  int64_t at;      // kPlanes: of the unit in its run

  __host__ __device__ __forceinline__ Cursor(const Geometry &geometry, const Share &share) {
    const int64_t unit = kWay == Way::kForward ? share.first : share.first + (share.count - 1) * share.turns;
    int64_t run = unit;
    at = 0;
    if constexpr (V::kLayout == Layout::kPlanes) {
      run = unit / geometry.run;
      at = unit - run * geometry.run;
    }
    offset = start(geometry.tensor.unit, run, share.channel);
    mask = V::kSpecial ? start(geometry.mask.unit, run, share.channel) : 0;
  }

  __host__ __device__ __forceinline__ void advance(const Geometry &geometry) {
    constexpr int64_t kSign = kWay == Way::kForward ? 1 : -1;
    offset += kSign * geometry.tensor.step;
    if constexpr (V::kSpecial) mask += kSign * geometry.mask.step;
    if constexpr (V::kLayout == Layout::kPlanes) {
      at += kSign * geometry.step;
      if (kWay == Way::kForward ? at >= geometry.run : at < 0) {
        at -= kSign * geometry.run;
        offset += kSign * geometry.tensor.wrap;
        if constexpr (V::kSpecial) mask += kSign * geometry.mask.wrap;
      }
    }
  }

  // From here on the way is found anew, not remembered from another cursor that went it before.
  __device__ __forceinline__ void forget_way() {
    forget(offset);
    if constexpr (V::kLayout == Layout::kPlanes) forget(at);
  }

 private:
  __host__ __device__ __forceinline__ int64_t start(const Strides &unit, int64_t run, int64_t channel) const {
    return run * unit.outer + channel * unit.channel + at * unit.inner;
  }
};

// Of the calling thread.
__device__ __forceinline__ Place this_place() { return {threadIdx, blockIdx, blockDim, gridDim}; }
__device__ __forceinline__ int thread_of_block() { return static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); }

}  // namespace syncbn

#endif
