// syncbn_cpu_copy: destination[i * destination_strides] = source[i * source_strides] for every index i within shape.
//
// in   source       elements of 1, 2, 4 or 8 bytes with strides >= 0, aligned to their size
// out  destination  the same with strides of its own; does not overlap source
//
// Algorithm: two dimensions span blocks that fit in the first-level cache, the one whose elements are closest in the
//            destination and the one whose elements are closest in the source: every line of either is used as a whole.
// Tasks:     some blocks.
// Traffic:   reads and writes each element once.
#include <string.h>

#include <algorithm>

#include "call.h"
#include "layout.h"
#include "pool.h"

namespace syncbn::cpu {
namespace {

constexpr int64_t kBlockElements = 4096;
// A block's side where lines of both tensors are to be used as a whole.
constexpr int64_t kBlockSide = 64;
constexpr int64_t kTaskBlocks = 16;

struct Dimension {
  int64_t size;
  int64_t source_stride;
  int64_t destination_stride;
};

class Plan {
 public:
  // The copy has elements.
  explicit Plan(const syncbn_copy_args &args) {
    for (int i = 0; i < args.rank; ++i) {
      if (args.shape[i] > 1) add({args.shape[i], args.source_strides[i], args.destination_strides[i]});
    }
    join();
    take(rows_, [](const Dimension &a, const Dimension &b) { return a.destination_stride < b.destination_stride; });
    take(columns_, [](const Dimension &a, const Dimension &b) { return a.source_stride < b.source_stride; });
    const bool transposes = columns_.size > 1 && columns_.source_stride < rows_.source_stride;
    row_block_ = smaller(rows_.size, transposes ? kBlockSide : kBlockElements);
    column_block_ = smaller(columns_.size, kBlockElements / row_block_);
  }

  int64_t blocks() const {
    int64_t blocks = divide_up(rows_.size, row_block_) * divide_up(columns_.size, column_block_);
    for (int i = 0; i < rank_; ++i) blocks *= dimensions_[i].size;
    return blocks;
  }

  template <typename T>
  void copy_block(int64_t block, const T *source, T *destination) const {
    const auto move = [&](const Dimension &dimension, int64_t index) {
      source += index * dimension.source_stride;
      destination += index * dimension.destination_stride;
    };
    const int64_t row_blocks = divide_up(rows_.size, row_block_);
    const int64_t column_blocks = divide_up(columns_.size, column_block_);
    const int64_t row = block % row_blocks * row_block_;
    const int64_t column = block / row_blocks % column_blocks * column_block_;
    int64_t rest = block / row_blocks / column_blocks;
    move(rows_, row);
    move(columns_, column);
    for (int i = 0; i < rank_; ++i) {
      move(dimensions_[i], rest % dimensions_[i].size);
      rest /= dimensions_[i].size;
    }
    const int64_t rows = smaller(row_block_, rows_.size - row);
    const int64_t columns = smaller(column_block_, columns_.size - column);
    for (int64_t i = 0; i < columns; ++i) {
      const T *from = source + i * columns_.source_stride;
      T *to = destination + i * columns_.destination_stride;
      if (rows_.source_stride == 1 && rows_.destination_stride == 1) {
        memcpy(to, from, static_cast<size_t>(rows) * sizeof(T));
      } else {
        for (int64_t j = 0; j < rows; ++j) to[j * rows_.destination_stride] = from[j * rows_.source_stride];
      }
    }
  }

 private:
  void add(const Dimension &dimension) { dimensions_[rank_++] = dimension; }

  // Dimensions that follow one another without a gap in both tensors become one.
  void join() {
    std::sort(dimensions_, dimensions_ + rank_,
              [](const Dimension &a, const Dimension &b) { return a.destination_stride < b.destination_stride; });
    int joined = 0;
    for (int i = 1; i < rank_; ++i) {
      Dimension &inner = dimensions_[joined];
      const Dimension &outer = dimensions_[i];
      if (outer.source_stride == inner.size * inner.source_stride &&
          outer.destination_stride == inner.size * inner.destination_stride) {
        inner.size *= outer.size;
      } else {
        dimensions_[++joined] = outer;
      }
    }
    rank_ = rank_ == 0 ? 0 : joined + 1;
  }

  // Moves the smallest dimension out of the list, if there is one.
  template <typename Less>
  void take(Dimension &dimension, const Less &less) {
    if (rank_ == 0) return;
    Dimension *smallest = std::min_element(dimensions_, dimensions_ + rank_, less);
    dimension = *smallest;
    std::copy(smallest + 1, dimensions_ + rank_, smallest);
    --rank_;
  }

  Dimension dimensions_[SYNCBN_MAX_RANK];  // that a block has no extent in
  int rank_ = 0;
  Dimension rows_ = {1, 0, 0};  // the inner loop's
  Dimension columns_ = {1, 0, 0};
  int64_t row_block_;
  int64_t column_block_;
};

template <typename T>
void run(const syncbn_copy_args &args) {
  const Plan plan(args);
  const int64_t blocks = plan.blocks();
  share(args.stream, divide_up(blocks, kTaskBlocks), [&](Tasks &tasks) {
    for (int64_t task; (task = tasks.next()) >= 0;) {
      const int64_t end = smaller((task + 1) * kTaskBlocks, blocks);
      for (int64_t block = task * kTaskBlocks; block < end; ++block) {
        plan.copy_block(block, pointer<const T>(args.source), pointer<T>(args.destination));
      }
    }
  });
}

}  // namespace
}  // namespace syncbn::cpu

extern "C" int32_t syncbn_cpu_copy(const syncbn_copy_args *args) {
  using namespace syncbn::cpu;
  if (const int status = syncbn::check(args, thread_error())) return status;
  if (std::count(args->shape, args->shape + args->rank, 0) > 0) return SYNCBN_OK;
  switch (args->element_size) {
    case 1:
      run<uint8_t>(*args);
      break;
    case 2:
      run<uint16_t>(*args);
      break;
    case 4:
      run<uint32_t>(*args);
      break;
    default:
      run<uint64_t>(*args);
  }
  return SYNCBN_OK;
}
