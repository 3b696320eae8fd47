// Do the kernels find every element of a tensor once, also past 2^31 and 2^33 elements? Their index functions run here
// on the host, so that no tensor is needed.
#include "check.h"
#include "cuda/one_launch.cuh"

using namespace syncbn;
using namespace test;

namespace {

constexpr int64_t k2to31 = int64_t{1} << 31;
constexpr int64_t k2to33 = int64_t{1} << 33;

// A launch of some kernel on some tensor.
template <typename V>
struct Launched {
  Launched(const Tiling &tiling, const Shape &shape, const Strides &mask)
      : launch(launch_shape(tiling, V::kWidth, shape)), geometry(geometry_of(V::kWidth, shape, mask, launch.block.y)) {}

  Share share(unsigned tile, unsigned block, unsigned x, unsigned y) const {
    return share_of<V>(geometry, {{x, y, 0}, {tile, block, 0}, launch.block, launch.grid});
  }

  LaunchShape launch;
  Geometry geometry;
};

// Where a unit lies, by a division.
template <typename V>
__int128 place_of(const Shape &shape, const Strides &strides, int64_t channel, int64_t unit) {
  const int64_t run = V::kLayout == Layout::kRows ? 1 : shape.inner / V::kWidth;
  return static_cast<__int128>(unit / run) * strides.outer + static_cast<__int128>(channel) * strides.channel +
         static_cast<__int128>(unit % run) * V::kWidth * strides.inner;
}

// Every unit of a tile belongs to one thread: a block's units follow those of the block before, and its threads take
// turns.
template <typename V>
void check_shares(const Launched<V> &launched, unsigned tile) {
  const int64_t threads = launched.launch.block.y;
  const auto by_turn = [&](unsigned block, unsigned turn) {
    // The threads of the first lane.
    return V::kLayout == Layout::kRows
               ? launched.share(tile, block, 0, turn)
               : launched.share(tile, block, turn % launched.launch.block.x, turn / launched.launch.block.x);
  };
  int64_t next = 0;
  int wrong = 0;
  for (unsigned block = 0; block < launched.launch.grid.y; ++block) {
    const int64_t begin = next;
    for (unsigned y = 0; y < threads; ++y) next += by_turn(block, y).count;
    for (unsigned y = 0; y < threads; ++y) {
      const Share share = by_turn(block, y);
      wrong += !share.exists || share.lane != 0 || share.turn != y || share.first != begin + y;
      wrong += share.count != (next - begin - y + threads - 1) / threads;
    }
  }
  CHECK_EQUAL(wrong, 0);
  CHECK_EQUAL(next, launched.geometry.units);
}

// All units of a thread, or the first and last of very many.
template <typename V, Way kWay>
void check_way(const Launched<V> &launched, const Shape &shape, const Strides &mask, const Share &share) {
  const Strides dense = {shape.channels * shape.inner, shape.inner, 1};
  const __int128 elements = static_cast<__int128>(shape.outer) * shape.channels * shape.inner;
  Cursor<V, kWay> cursor(launched.geometry, share);
  int wrong = 0;
  for (int64_t k = 0; k < std::min<int64_t>(share.count, 100000); ++k) {
    const int64_t turn = kWay == Way::kForward ? k : share.count - 1 - k;
    const int64_t unit = share.first + turn * launched.launch.block.y;
    const __int128 place = place_of<V>(shape, dense, share.channel, unit);
    wrong += cursor.offset != place || place < 0 || place + V::kWidth > elements;
    if (V::kSpecial) wrong += cursor.mask != place_of<V>(shape, mask, share.channel, unit);
    cursor.advance(launched.geometry);
  }
  CHECK_EQUAL(wrong, 0);
}

template <typename V>
void check_tensor(const Tiling &tiling, const Shape &shape, const Strides &mask) {
  const Launched<V> launched(tiling, shape, mask);
  const dim3 grid = launched.launch.grid;
  const dim3 block = launched.launch.block;
  CHECK(layout_of(shape) == V::kLayout);
  CHECK_EQUAL(block.x * block.y, 256u);
  CHECK(grid.y <= 65535 && grid.x <= 0x7fffffffu);
  for (const unsigned tile : {0u, grid.x / 2, grid.x - 1}) {
    check_shares(launched, tile);
    for (const unsigned b : {0u, grid.y / 2, grid.y - 1}) {
      for (const unsigned y : {0u, block.y / 2, block.y - 1}) {
        for (unsigned x = 0; x < block.x; ++x) {
          const Share share = launched.share(tile, b, x, y);
          CHECK_EQUAL(share.exists, share.channel < shape.channels);
          if (!share.exists) continue;
          check_way<V, Way::kForward>(launched, shape, mask, share);
          check_way<V, Way::kBackward>(launched, shape, mask, share);
        }
      }
    }
  }
  // The last tile has the last channel.
  const Share last = launched.share(grid.x - 1, 0, 0, 0);
  CHECK(last.exists && last.channel + static_cast<int64_t>(block.x) * V::kChannels >= shape.channels);
  const Share thread = launched.share(0, 0, block.x - 1, block.y - 1);
  CHECK(thread.lane == block.x - 1 && thread.turn == block.y - 1);
}

template <Layout kLayout, int kWidth>
void check_shape(const Shape &shape) {
  const Strides dense = {shape.channels * shape.inner, shape.inner, 1};
  const Strides by_outer = {shape.inner, 0, 1};
  for (const Tiling &tiling : {kReduceTiling, kTransformTiling, Tiling{128, 8, true}}) {
    check_tensor<Variant<float, kLayout, kWidth, Access::kSingle>>(tiling, shape, {});
    if constexpr (kWidth == 1) {
      check_tensor<Variant<float, kLayout, 1, Access::kSpecial>>(tiling, shape, dense);
      check_tensor<Variant<float, kLayout, 1, Access::kSpecial>>(tiling, shape, by_outer);
    }
  }
}

TEST(index_of_rows) {
  check_shape<Layout::kRows, 1>({1000, 37, 1});
  check_shape<Layout::kRows, 2>({999, 70, 1});
  check_shape<Layout::kRows, 4>({1001, 100, 1});
  check_shape<Layout::kRows, 8>({1001, 200, 1});
  check_shape<Layout::kRows, 1>({k2to31 + 3, 5, 1});
  check_shape<Layout::kRows, 4>({(k2to33 >> 6) + 1, 64, 1});
  check_shape<Layout::kRows, 1>({7, k2to31 - 1, 1});
  check_shape<Layout::kRows, 4>({5, k2to31 - 4, 1});
  check_shape<Layout::kRows, 8>({5, k2to31 - 8, 1});
  check_shape<Layout::kRows, 1>({k2to33 + 1, 1, 1});
}

TEST(index_of_planes) {
  check_shape<Layout::kPlanes, 1>({100, 3, 49});
  check_shape<Layout::kPlanes, 4>({100, 3, 12});
  check_shape<Layout::kPlanes, 1>({2, 2048, 49});
  check_shape<Layout::kPlanes, 4>({2, 7, 16});
  check_shape<Layout::kPlanes, 2>({2, 7, 18});
  check_shape<Layout::kPlanes, 8>({3, 9, 56});
  check_shape<Layout::kPlanes, 4>({2, 3, k2to31 + 4});
  check_shape<Layout::kPlanes, 8>({2, 3, k2to31 + 8});
  check_shape<Layout::kPlanes, 1>({1, 2, k2to33 + 1});
  check_shape<Layout::kPlanes, 1>({70001, 512, 257});
  check_shape<Layout::kPlanes, 4>({k2to31, 2, 4});
  check_shape<Layout::kPlanes, 1>({3, k2to31 - 1, 2});
  check_shape<Layout::kPlanes, 1>({k2to31 + 5, 3, 3});
}

// The stride of a dimension of size 1 may be anything.
TEST(index_ignores_unused_strides) {
  constexpr int64_t kAny = INT64_MAX;
  const Geometry rows = geometry_of(1, {9, 1, 1}, {2, kAny, kAny}, 256);
  CHECK_EQUAL(rows.mask.step, 512);
  const Geometry planes = geometry_of(4, {1, 5, 8}, {kAny, 0, 1}, 256);
  CHECK_EQUAL(planes.mask.unit.outer, 0);
}

// ---- which variant runs, and on how many blocks

struct Choice {
  int32_t dtype;
  int64_t channels, inner;
  uint64_t misaligned;  // bytes
  bool special;
  int width;  // of a kernel that adds up
  Access access;
  int other_width;  // of one that does not
};

TEST(units_are_as_wide_as_shape_and_alignment_allow) {
  constexpr Choice kChoices[] = {
      {SYNCBN_FLOAT32, 64, 1, 0, false, 4, Access::kWhole, 4},
      {SYNCBN_FLOAT32, 64, 1, 8, false, 4, Access::kSingle, 1},
      {SYNCBN_FLOAT32, 66, 1, 0, false, 1, Access::kSingle, 1},
      {SYNCBN_FLOAT32, 64, 1, 0, true, 1, Access::kSpecial, 1},
      {SYNCBN_FLOAT16, 64, 1, 0, false, 8, Access::kWhole, 8},
      {SYNCBN_FLOAT16, 64, 1, 8, false, 8, Access::kSingle, 4},
      {SYNCBN_FLOAT16, 64, 1, 2, false, 8, Access::kSingle, 1},
      {SYNCBN_FLOAT16, 68, 1, 0, false, 4, Access::kWhole, 4},
      {SYNCBN_FLOAT16, 68, 1, 4, false, 4, Access::kSingle, 1},
      {SYNCBN_FLOAT16, 66, 1, 0, false, 1, Access::kSingle, 1},
      {SYNCBN_BFLOAT16, 3, 196, 8, false, 4, Access::kWhole, 4},
      {SYNCBN_BFLOAT16, 3, 784, 0, false, 8, Access::kWhole, 8},
      {SYNCBN_BFLOAT16, 8, 49, 0, false, 1, Access::kSingle, 1},
      {SYNCBN_FLOAT64, 6, 1, 0, false, 2, Access::kWhole, 2},
      {SYNCBN_FLOAT64, 6, 1, 8, false, 2, Access::kSingle, 1},
      {SYNCBN_FLOAT64, 8, 7, 0, false, 1, Access::kSingle, 1},
      {SYNCBN_FLOAT64, 7, 8, 0, true, 1, Access::kSpecial, 1},
  };
  for (const Choice &choice : kChoices) {
    const Shape shape = {5, choice.channels, choice.inner};
    const syncbn_address at = 4096 + choice.misaligned;
    const Plan adds = plan_of(kReduceTiling, choice.dtype, shape, {}, choice.special, {0, at}, 0);
    CHECK_EQUAL(adds.width, choice.width);
    CHECK(adds.access == choice.access);
    const Plan other = plan_of(kTransformTiling, choice.dtype, shape, {}, choice.special, {at, 4096}, 0);
    CHECK_EQUAL(other.width, choice.other_width);
    CHECK((other.access == Access::kWhole) == (choice.other_width > 1));
    // A unit's mask bytes are moved like its elements.
    const Plan bytes = plan_of(kReduceTiling, choice.dtype, shape, {}, choice.special, {4096}, 4097);
    CHECK_EQUAL(bytes.width, choice.width);
    CHECK(bytes.access != Access::kWhole);
  }
}

// The layers of ResNet-50 have a block for each of an H100's 132 multiprocessors, or so little work that no thread has
// more than what another block is worth; and no more blocks than fit twice.
TEST(grids_fill_the_chip) {
  constexpr int64_t kLayers[][2] = {{64, 112}, {64, 56},  {256, 56},  {128, 56}, {128, 28}, {512, 28},
                                    {256, 28}, {256, 14}, {1024, 14}, {512, 14}, {512, 7},  {2048, 7}};
  const auto check = [](const Tiling &tiling, int32_t dtype, const Shape &shape) {
    const Plan plan = plan_of(tiling, dtype, shape, {}, false, {}, 0);
    const dim3 grid = plan.shape.grid;
    const int64_t blocks = int64_t{grid.x} * grid.y;
    const int64_t of_block = (plan.geometry.units + grid.y - 1) / grid.y;
    const bool enough = blocks >= 132 || of_block <= tiling.units * int64_t{plan.shape.block.y};
    const bool several = shape.channels > 64 || grid.y > 1;
    if (enough && several && blocks <= 2 * kMaxBlocks) return;
    failed(
        __FILE__, __LINE__,
        sim::format("%s [%ld, %ld, %ld], dtype %d: grid %u x %u, %ld units a block", tiling.adds ? "sums" : "y or dx",
                    shape.outer, shape.channels, shape.inner, dtype, grid.x, grid.y, of_block));
  };
  for (const Tiling &tiling : {kReduceTiling, kTransformTiling}) {
    for (const auto &[channels, side] : kLayers) {
      for (const int64_t images : {16, 32}) {
        for (const int32_t dtype : {SYNCBN_FLOAT32, SYNCBN_FLOAT16, SYNCBN_BFLOAT16, SYNCBN_FLOAT64}) {
          const int64_t area = side * side;
          check(tiling, dtype, {images * area, channels, 1});
          check(tiling, dtype, {images, channels, area});
        }
      }
    }
  }
}

// Which layers of ResNet-50 an H100 (132 multiprocessors with 228 KiB of shared memory) keeps on its chip.
TEST(one_launch_holds_what_fits) {
  struct Layer {
    int64_t images, channels, side;
    bool last;  // channels-last
    int32_t dtype;
    bool forward, backward;
  };
  constexpr Layer kLayers[] = {
      {32, 64, 112, true, SYNCBN_BFLOAT16, false, false}, {32, 256, 56, false, SYNCBN_BFLOAT16, false, false},
      {32, 128, 56, true, SYNCBN_BFLOAT16, true, false},  {32, 128, 56, false, SYNCBN_BFLOAT16, true, false},
      {32, 512, 28, true, SYNCBN_BFLOAT16, true, false},  {32, 512, 28, false, SYNCBN_BFLOAT16, true, false},
      {32, 64, 56, true, SYNCBN_BFLOAT16, true, true},    {32, 64, 56, false, SYNCBN_BFLOAT16, true, true},
      {32, 256, 28, true, SYNCBN_BFLOAT16, true, true},   {32, 1024, 14, true, SYNCBN_BFLOAT16, true, false},
      {32, 1024, 14, false, SYNCBN_BFLOAT16, true, true}, {32, 2048, 7, false, SYNCBN_BFLOAT16, true, true},
      {16, 64, 56, true, SYNCBN_FLOAT32, true, true},     {16, 64, 112, true, SYNCBN_FLOAT32, false, false},
      {32, 512, 7, true, SYNCBN_FLOAT32, true, true},     {4, 64, 112, false, SYNCBN_FLOAT32, true, true},
  };
  constexpr int kMultiprocessors = 132;
  constexpr int kShared = 228 << 10;
  for (const Layer &layer : kLayers) {
    const int64_t area = layer.side * layer.side;
    const Shape shape =
        layer.last ? Shape{layer.images * area, layer.channels, 1} : Shape{layer.images, layer.channels, area};
    const Plan plan = plan_of(kReduceTiling, layer.dtype, shape, {}, false, {}, 0);
    const OneLaunch forward = one_launch_of<1>(plan, kMultiprocessors, kShared);
    const OneLaunch backward = one_launch_of<2>(plan, kMultiprocessors, kShared);
    const int64_t bytes = shape.outer * shape.channels * shape.inner * element_size(layer.dtype);
    if ((forward.bytes_on_chip > 0) != layer.forward || (backward.bytes_on_chip > 0) != layer.backward) {
      failed(__FILE__, __LINE__,
             sim::format("[%ld, %ld, %ld] of %ld bytes: forward %ld, backward %ld on the chip", shape.outer,
                         shape.channels, shape.inner, bytes, forward.bytes_on_chip, backward.bytes_on_chip));
    }
    for (const OneLaunch &one : {forward, backward}) {
      if (one.bytes_on_chip == 0) continue;
      CHECK(one.bytes_on_chip >= bytes);
      CHECK(one.plan.shape.shared + kOtherShared + kSystemShared <= kShared / 2);
      CHECK(one.plan.shape.together == (plan.shape.grid.y > 1));
    }
    // A smaller chip: an A100's blocks do not come together on it.
    CHECK_EQUAL(one_launch_of<1>(plan, 1, kShared).bytes_on_chip > 0, plan.shape.grid.y == 1 && layer.forward);
  }
}

}  // namespace
