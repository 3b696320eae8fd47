// How are the elements of a lane summed up? Block by block, in the columns of a tile, which are folded into channels.
#ifndef SYNCBN_CPU_SUMS_H
#define SYNCBN_CPU_SUMS_H

#include <stdint.h>

#include "lanes.h"
#include "loops.h"

namespace syncbn::cpu {

// Calls runs(offset, Runs) or columns(offset, Rows, columns) for parts that together have every element of these
// channels in a block. offset: of the part's first element. Column i of either adds to the tile's column i.
template <typename OfRuns, typename OfColumns>
void for_each_part(const Lanes &lanes, const Block &block, Range channels, const OfRuns &runs,
                   const OfColumns &columns) {
  const Layout &layout = lanes.layout;
  if (lanes.runs) {
    const int64_t gap = layout.channels * layout.inner;
    for (int64_t row = block.rows.begin; row < block.rows.end;) {
      const Range run = layout.run(row);
      const int rows = is_short(run.size()) && block.rows.end - row >= kChains ? kChains : 1;
      runs(layout.index(layout.outer_of(row), channels.begin, run.begin),
           Runs{layout.inner, gap, static_cast<int>(channels.size()), static_cast<int>(run.size()), rows});
      row += rows;
    }
    return;
  }
  const int64_t row = layout.channels * layout.inner;
  const int width = static_cast<int>(channels.size() * layout.inner);
  const int64_t offset = layout.index(block.rows.begin, channels.begin, 0);
  const int64_t stride = row * lanes.super_row;
  const int whole = static_cast<int>(block.rows.size() / lanes.super_row);
  const int rest = static_cast<int>(block.rows.size() % lanes.super_row);
  if (whole > 0) columns(offset, Rows{stride, block.gap * row, whole, block.streams}, width * lanes.super_row);
  if (rest > 0) columns(offset + whole * stride, Rows{0, 0, 1, 1}, width * rest);
}

// Calls each(Block) for the blocks of a lane in a tile, in order.
template <typename Each>
void for_each_block(const Lanes &lanes, Range rows, Range channels, const Each &each) {
  int64_t begin = rows.begin;
  if (!lanes.runs && lanes.columns(channels) > kNarrow) {
    const int64_t unit = lanes.super_row;
    const int64_t stream = rows.size() / (unit * kStreams) * unit;
    const int64_t step = kMaxAdditions * unit;
    for (int64_t row = 0; row < stream; row += step) {
      each(Block{{begin + row, begin + smaller(row + step, stream)}, kStreams, stream});
    }
    begin += stream * kStreams;
  }
  for (; begin < rows.end; begin += lanes.block_rows) {
    each(Block{{begin, smaller(begin + lanes.block_rows, rows.end)}, 1, 0});
  }
}

// The elements of a channel in a block.
inline double elements(const Lanes &lanes, const Block &block) {
  return static_cast<double>(lanes.layout.elements(block.rows) * block.streams);
}

// Of a tile's factors, one per channel, makes what the loops take: one per run, or one per column of a super-row.
template <typename R>
void spread_to_sums(const Lanes &lanes, int channels, R *values) {
  if (lanes.runs) return;
  spread(values, channels, lanes.width());
  const int columns = channels * lanes.width();
  for (int i = columns; i < columns * lanes.super_row; ++i) values[i] = values[i - columns];
}

// totals[c] += the sum of the columns of channel c. T: of the tensor.
template <typename T>
void add_columns(const Lanes &lanes, int channels, const Real<T> *columns, double *totals) {
  const int width = lanes.width();
  for (int repeat = 0; repeat < lanes.super_row; ++repeat, columns += channels * width) {
    loops_of<T>().fold(columns, channels, width, totals);
  }
}

}  // namespace syncbn::cpu

#endif
