// Which elements are summed together? The fixed tree of additions that makes a result depend on its shape alone.
//
// The rows of a tensor are cut into lanes, which are summed up on their own and merged in order. A lane is cut into
// blocks. A block is summed in the tensor's own precision, in columns: where inner is small a column is one [channel,
// inner] of all rows, where it is large a channel's elements are dealt to kRunColumns columns. The columns of a channel
// are then added to the lane's float64 sums. Nothing depends on the number of threads or on the instruction set.
#ifndef SYNCBN_CPU_LANES_H
#define SYNCBN_CPU_LANES_H

#include <stdint.h>

#include "layout.h"

namespace syncbn::cpu {

// Columns that a task works on at once: what its sums and tables take of the thread's stack and first-level cache.
constexpr int kTileColumns = 2048;
// A shorter run does not pay for a beginning and an end of its own.
constexpr int64_t kMinRun = 256;
constexpr int kRunColumns = 64;

// Rows summed in float32. At most 24 additions follow one another within it (loops.inc), which bounds the relative
// error of a sum of squares by 2^-19; it is ten times smaller as a rule.
constexpr int kBlockRows = 128;
// Additions to a column's sum in a block of runs, the last 8 of those 24.
constexpr int64_t kBlockChains = 8;
// Rows that loops.inc sums up before it adds to a column's sum.
constexpr int kChain = 16;
// Float64 values per channel that a lane may leave in the workspace.
constexpr int64_t kLaneValues = 4;

constexpr int64_t kMaxLanes = 64;
// Fewer elements, of a channel or of a task, are not worth the merge of another lane.
constexpr int64_t kMinLaneChannelElements = 128;
constexpr int64_t kMinTaskElements = 16384;
// Lanes times channels, so that the workspace of many channels stays small: these are parallel by tiles of columns.
constexpr int64_t kMaxLaneChannels = 32768;

// Floats in the widest vector.
constexpr int kMaxVector = 16;

constexpr int64_t max_lanes(int64_t channels) { return clamp(kMaxLaneChannels / channels, 1, kMaxLanes); }

constexpr int64_t workspace_bytes(int64_t channels) {
  return max_lanes(channels) * kLaneValues * channels * static_cast<int64_t>(sizeof(double));
}

// Rows that are treated as one: so few columns fill whole vectors, and groups of them that the loops keep in registers.
constexpr int rows_per_super_row(int64_t columns) {
  constexpr int64_t kGroup = 64;
  constexpr int64_t kMaxColumns = 1024;
  if (columns > kMaxColumns) return 1;
  int64_t rows = 1;
  while (rows * columns % kGroup != 0) rows *= 2;
  // Where that is too wide, whole vectors at least.
  while (rows * columns > kMaxColumns && rows > 1 && rows * columns % (2 * kMaxVector) == 0) rows /= 2;
  return rows * columns <= kMaxColumns ? static_cast<int>(rows) : 1;
}

// How one tensor is cut; it has elements. A task is one lane in one tile of channels.
struct Lanes {
  Layout layout;
  bool runs;      // whether a channel's runs are summed on their own
  int super_row;  // in rows
  Tiles tiles;
  int64_t lanes;       // >= 1
  int64_t block_rows;  // of a lane

  constexpr explicit Lanes(const Layout &layout)
      : layout(layout),
        runs(layout.inner >= kMinRun),
        super_row(runs ? 1 : rows_per_super_row(layout.channels * layout.inner)),
        tiles(layout, kTileColumns / width()),
        lanes(clamp(smaller(layout.rows() / divide_up(kMinLaneChannelElements, layout.piece),
                            layout.elements() / tiles.count() / kMinTaskElements),
                    1, smaller(max_lanes(layout.channels), larger(kMaxLanes / tiles.count(), 1)))),
        block_rows(runs ? larger(kBlockChains / chains(layout.piece), 1) : kBlockRows * super_row) {}

  constexpr int64_t tasks() const { return lanes * tiles.count(); }
  constexpr int64_t lane(int64_t task) const { return task / tiles.count(); }
  constexpr Range lane_rows(int64_t lane) const { return part(layout.rows(), super_row, lanes, lane); }
  constexpr Range rows(int64_t task) const { return lane_rows(lane(task)); }
  constexpr Range channels(int64_t task) const { return tiles[task % tiles.count()]; }

  // The columns of a channel. Those of a tile are [super_row][channels][width].
  constexpr int width() const { return runs ? kRunColumns : static_cast<int>(layout.inner); }

 private:
  // Additions to a column's sum per row: for each chain, and for what does not fill all columns.
  static constexpr int64_t chains(int64_t piece) {
    return divide_up(piece / kRunColumns, kChain) + (piece % kRunColumns != 0);
  }
};

}  // namespace syncbn::cpu

#endif
