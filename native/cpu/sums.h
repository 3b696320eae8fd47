// How are the elements of a lane summed up? Block by block, in the columns of a tile, which are folded into channels.
#ifndef SYNCBN_CPU_SUMS_H
#define SYNCBN_CPU_SUMS_H

#include <stdint.h>

#include "lanes.h"
#include "loops.h"

namespace syncbn::cpu {

// Calls sum(offset, stride, rows, columns, column) for matrices that together have every element of these rows and
// channels: row r of one is at element offset + r * stride, and its first column adds to the tile's column `column`.
template <typename Sum>
void for_each_matrix(const Lanes &lanes, Range rows, Range channels, const Sum &sum) {
  const Layout &layout = lanes.layout;
  if (lanes.runs) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const Range run = layout.run(row);
      const int whole = static_cast<int>(run.size() / kRunColumns);
      const int rest = static_cast<int>(run.size() % kRunColumns);
      int column = 0;
      for (int64_t channel = channels.begin; channel < channels.end; ++channel, column += kRunColumns) {
        const int64_t offset = layout.index(layout.outer_of(row), channel, run.begin);
        if (whole > 0) sum(offset, kRunColumns, whole, kRunColumns, column);
        if (rest > 0) sum(offset + whole * kRunColumns, 0, 1, rest, column);
      }
    }
    return;
  }
  const int columns = static_cast<int>(channels.size() * layout.inner);
  const int64_t stride = layout.channels * layout.inner * lanes.super_row;
  const int64_t offset = layout.index(rows.begin, channels.begin, 0);
  const int whole = static_cast<int>(rows.size() / lanes.super_row);
  const int rest = static_cast<int>(rows.size() % lanes.super_row);
  if (whole > 0) sum(offset, stride, whole, columns * lanes.super_row, 0);
  if (rest > 0) sum(offset + whole * stride, 0, 1, columns * rest, 0);
}

// The blocks of a lane, in order.
template <typename Block>
void for_each_block(const Lanes &lanes, Range rows, const Block &block) {
  for (int64_t begin = rows.begin; begin < rows.end; begin += lanes.block_rows) {
    block(Range{begin, smaller(begin + lanes.block_rows, rows.end)});
  }
}

// Gives every column of a tile's sums the value of its channel: `values` begins with one per channel.
template <typename R>
void spread_to_sums(const Lanes &lanes, int channels, R *values) {
  spread(values, channels, lanes.width());
  const int columns = channels * lanes.width();
  for (int i = columns; i < columns * lanes.super_row; ++i) values[i] = values[i - columns];
}

// totals[c] += the sum of the columns of channel c. T: of the tensor.
template <typename T>
void add_columns(const Lanes &lanes, int channels, const Real<T> *columns, double *totals) {
  const int width = lanes.width();
  for (int repeat = 0; repeat < lanes.super_row; ++repeat, columns += channels * width) {
    if (width == 1) {
      for (int c = 0; c < channels; ++c) totals[c] += static_cast<double>(columns[c]);
    } else {
      loops_of<T>().fold(columns, channels, width, totals);
    }
  }
  // Which of several NaNs a sum passes on depends on the instruction set: all become the same one.
  for (int c = 0; c < channels; ++c) totals[c] = totals[c] == totals[c] ? totals[c] : __builtin_nan("");
}

}  // namespace syncbn::cpu

#endif
