// Every element of a strided copy goes where it belongs, and nothing else is written.
#include <algorithm>
#include <numeric>

#include "backend.h"
#include "check.h"
#include "step.h"

namespace test {
namespace {

struct Copy {
  int32_t element_size = 4;
  std::vector<int64_t> shape, source_strides, destination_strides;
  int64_t misaligned = 0;  // in elements
};

// Elements from the first to the last that the strides reach.
int64_t extent(const std::vector<int64_t> &shape, const std::vector<int64_t> &strides) {
  int64_t last = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return 0;
    last += (shape[i] - 1) * strides[i];
  }
  return last + 1;
}

// Calls visit(source element, destination element) for every index.
template <typename Visit>
void for_each_index(const Copy &copy, const Visit &visit) {
  const int64_t count = std::accumulate(copy.shape.begin(), copy.shape.end(), int64_t{1}, std::multiplies<int64_t>());
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, source = 0, destination = 0;
    for (size_t k = copy.shape.size(); k-- > 0; rest /= copy.shape[k]) {
      source += rest % copy.shape[k] * copy.source_strides[k];
      destination += rest % copy.shape[k] * copy.destination_strides[k];
    }
    visit(source, destination);
  }
}

void check_copy(const Copy &copy) {
  std::string text = std::string(backend::kName) + " element_size " + std::to_string(copy.element_size);
  for (size_t i = 0; i < copy.shape.size(); ++i) {
    text += " " + std::to_string(copy.shape[i]) + ":" + std::to_string(copy.source_strides[i]) + ">" +
            std::to_string(copy.destination_strides[i]);
  }
  const Context context("%s misaligned %lld", text.c_str(), static_cast<long long>(copy.misaligned));
  const int64_t size = copy.element_size;
  Bytes input(static_cast<size_t>(extent(copy.shape, copy.source_strides) * size));
  Random random(input.size());
  for (unsigned char &byte : input) byte = static_cast<unsigned char>(random.bits());
  Bytes want(static_cast<size_t>(extent(copy.shape, copy.destination_strides) * size), 0xff);
  for_each_index(copy, [&](int64_t source, int64_t destination) {
    std::copy_n(input.begin() + source * size, size, want.begin() + destination * size);
  });
  Buffer source("source", static_cast<int64_t>(input.size()), copy.misaligned * size);
  Buffer destination("destination", static_cast<int64_t>(want.size()), copy.misaligned * size);
  source.upload_bytes(input);
  syncbn_copy_args args = {};
  args.struct_size = sizeof args;
  args.element_size = copy.element_size;
  args.rank = static_cast<int32_t>(copy.shape.size());
  std::copy(copy.shape.begin(), copy.shape.end(), args.shape);
  std::copy(copy.source_strides.begin(), copy.source_strides.end(), args.source_strides);
  std::copy(copy.destination_strides.begin(), copy.destination_strides.end(), args.destination_strides);
  args.source = source.address();
  args.destination = destination.address();
  args.stream = backend::stream();
  CHECK(backend::copy(&args) == SYNCBN_OK, "%s", backend::last_error());
  const Bytes got = destination.download_bytes();
  const auto differ = std::mismatch(got.begin(), got.end(), want.begin());
  CHECK(differ.first == got.end(), "byte %td is 0x%02x, want 0x%02x", differ.first - got.begin(), *differ.first,
        *differ.second);
}

// Strides of a dense tensor whose dimensions lie in memory in the given order, with gaps of `gap` elements.
std::vector<int64_t> strides_of(const std::vector<int64_t> &shape, const std::vector<size_t> &order, int64_t gap) {
  std::vector<int64_t> strides(shape.size());
  int64_t next = 1;
  for (size_t k = order.size(); k-- > 0;) {
    strides[order[k]] = next;
    next = next * std::max<int64_t>(shape[order[k]], 1) + gap;
  }
  return strides;
}

std::vector<size_t> permutation(size_t size, Random &random) {
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = size; i > 1; --i)
    std::swap(order[i - 1], order[static_cast<size_t>(random.below(static_cast<int>(i)))]);
  return order;
}

}  // namespace

TEST(copies_of_every_rank) {
  constexpr int32_t kSizes[] = {1, 2, 4, 8};
  constexpr int64_t kExtents[] = {1, 1, 2, 3, 4, 5, 7, 16, 33, 64, 100};
  for (size_t rank = 0; rank <= SYNCBN_MAX_RANK; ++rank) {
    for (int turn = 0; turn < 12; ++turn) {
      Random random(rank * 100 + static_cast<uint64_t>(turn));
      Copy copy;
      copy.element_size = random.one_of(kSizes);
      copy.misaligned = random.below(8);
      int64_t elements = 1;
      for (size_t i = 0; i < rank; ++i) {
        const int64_t length = random.one_of(kExtents);
        const bool fits = elements * length <= backend::kMaxElements / 4;
        copy.shape.push_back(random.chance(60) ? 0 : fits ? length : 1);
        elements *= fits ? length : 1;
      }
      const auto order = permutation(rank, random);
      copy.source_strides = strides_of(copy.shape, order, random.chance(3) ? random.below(4) : 0);
      copy.destination_strides = strides_of(copy.shape, random.chance(3) ? order : permutation(rank, random),
                                            random.chance(3) ? random.below(4) : 0);
      for (int64_t &stride : copy.source_strides) stride = random.chance(6) ? 0 : stride;
      check_copy(copy);
    }
  }
}

// What the layer packs: a transpose of planes either way, at sizes around any tile.
TEST(copies_that_transpose) {
  for (const int32_t size : {1, 2, 4, 8}) {
    for (const int64_t rows : {1, 2, 31, 32, 33, 65}) {
      for (const int64_t columns : {1, 3, 16, 63, 64, 129}) {
        const int64_t planes = 2;
        check_copy({size,
                    {planes, rows, columns},
                    {rows * columns, columns, 1},
                    {rows * columns, 1, rows},
                    (rows + columns) % 3});
      }
    }
  }
}

}  // namespace test
