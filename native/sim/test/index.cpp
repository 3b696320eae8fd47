// Do the kernels find every element of a tensor once, also past 2^31 and 2^33 elements? Their index functions run here
// on the host, so that no tensor is needed.
#include "cuda/index.cuh"

#include "check.h"

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
template <typename V>
void check_way(const Launched<V> &launched, const Shape &shape, const Strides &mask, const Share &share) {
  const Strides dense = {shape.channels * shape.inner, shape.inner, 1};
  const __int128 elements = static_cast<__int128>(shape.outer) * shape.channels * shape.inner;
  Cursor<V> cursor(launched.geometry, share);
  int wrong = 0;
  for (int64_t k = 0; k < std::min<int64_t>(share.count, 100000); ++k) {
    const int64_t unit = share.first + k * launched.launch.block.y;
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
          if (share.exists) check_way(launched, shape, mask, share);
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
  for (const Tiling &tiling : {Tiling{32, 8, 264}, Tiling{128, 3, 396}}) {
    check_tensor<Variant<float, kLayout, kWidth, false>>(tiling, shape, {});
    check_tensor<Variant<float, kLayout, kWidth, true>>(tiling, shape, dense);
    check_tensor<Variant<float, kLayout, kWidth, true>>(tiling, shape, by_outer);
  }
}

TEST(index_of_rows) {
  check_shape<Layout::kRows, 1>({1000, 37, 1});
  check_shape<Layout::kRows, 4>({1001, 100, 1});
  check_shape<Layout::kRows, 1>({k2to31 + 3, 5, 1});
  check_shape<Layout::kRows, 4>({(k2to33 >> 6) + 1, 64, 1});
  check_shape<Layout::kRows, 1>({7, k2to31 - 1, 1});
  check_shape<Layout::kRows, 4>({5, k2to31 - 4, 1});
  check_shape<Layout::kRows, 1>({k2to33 + 1, 1, 1});
}

TEST(index_of_planes) {
  check_shape<Layout::kPlanes, 1>({100, 3, 49});
  check_shape<Layout::kPlanes, 4>({100, 3, 12});
  check_shape<Layout::kPlanes, 1>({2, 2048, 49});
  check_shape<Layout::kPlanes, 4>({2, 7, 16});
  check_shape<Layout::kPlanes, 4>({2, 3, k2to31 + 4});
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

}  // namespace
