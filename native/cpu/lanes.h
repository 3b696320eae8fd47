// Which elements are summed together? The fixed tree of additions that makes a result depend on its shape alone.
//
// The rows of a tensor are cut into lanes, which are summed up on their own and merged in order. A lane is cut into
// blocks. A block is summed in the tensor's own precision, in columns: where inner is small a column is one [channel,
// inner] of all rows, where it is large a channel's run is dealt to kRunColumns columns. The columns of a channel are
// then added to the lane's float64 sums. Nothing depends on the number of threads or on the instruction set.
#ifndef SYNCBN_CPU_LANES_H
#define SYNCBN_CPU_LANES_H

#include <stdint.h>

#include "layout.h"

namespace syncbn::cpu {

// Columns that a task works on at once: what its sums and tables take of the thread's stack and first-level cache.
constexpr int kTileColumns = 2048;
// Elements of a run that are summed without a look at another one's, at most.
constexpr int64_t kMaxSumPiece = 4096;
// Runs at least this long are summed on their own: they fill the columns that they are dealt to.
constexpr int kRunColumns = 16;
// A run is summed in so many chains of groups of kRunColumns elements, which are then added up as a tree. Of short runs
// so many rows are read at once, and each is a chain.
constexpr int kChains = 4;
constexpr bool is_short(int64_t run) { return run < 256; }
// Additions to a chain, or to a column's sum of rows in registers, before it is added to what is in memory.
constexpr int kChain = 16;
// Neighbouring runs in a tile: as many elements as are read in one stretch, and few enough channels that there are
// several tiles to share.
constexpr int64_t kRunTileElements = 16384;
constexpr int64_t kMaxRunTile = 64;

// Rows summed in float32. At most kMaxAdditions follow one another within it, and a tree's two, which bounds the
// relative error of a sum of squares by 2^-19; it is ten times smaller as a rule. Of a gradient's products, of which
// half as many streams are added at once, they are twice as many.
constexpr int64_t kMaxAdditions = 25;
constexpr int64_t kBlockRows = 128;
// More columns than stay in registers are read in so many streams at once, each through a part of the lane. Measured:
// with eight, sums took 5 to 20 % longer.
constexpr int kStreams = 4;
constexpr int kNarrow = 128;

// Float64 values per channel that a lane may leave in the workspace.
constexpr int64_t kLaneValues = 4;

constexpr int64_t kMaxLanes = 32;
// Fewer elements, of a channel or of a task, are not worth the merge of another lane.
constexpr int64_t kMinLaneChannelElements = 192;
// A channel's runs are read and folded channel by channel, which takes as long as some hundred elements.
constexpr int64_t kMinLaneRunElements = 1536;
constexpr int64_t kMinTaskElements = 32768;
// Lanes times channels, so that the workspace of many channels stays small: these are parallel by tiles of columns.
constexpr int64_t kMaxLaneChannels = 32768;

// Floats in the widest vector.
constexpr int kMaxVector = 16;

constexpr int64_t max_lanes(int64_t channels) { return clamp(kMaxLaneChannels / channels, 1, kMaxLanes); }

constexpr int64_t workspace_bytes(int64_t channels) {
  return max_lanes(channels) * kLaneValues * channels * static_cast<int64_t>(sizeof(double));
}

// Rows that are treated as one: so few columns fill whole vectors, and enough of them to add to by turns.
constexpr int rows_per_super_row(int64_t columns) {
  constexpr int64_t kMinColumns = 48;
  constexpr int64_t kMaxColumns = 1024;
  if (columns > kMaxColumns) return 1;
  int64_t rows = 1;
  while (rows * columns % kMaxVector != 0 || rows * columns < kMinColumns) rows *= 2;
  // Where that is too wide, whole vectors at least.
  while (rows * columns > kMaxColumns && rows > 1 && rows * columns % (2 * kMaxVector) == 0) rows /= 2;
  return rows * columns <= kMaxColumns ? static_cast<int>(rows) : 1;
}

// Rows of a lane that are summed up together: `rows`, and in each other stream those `gap` rows further on.
struct Block {
  Range rows;
  int streams;  // 1 or kStreams
  int64_t gap;
};

// How one tensor is cut; it has elements. A task is one lane in one tile of channels.
struct Lanes {
  Layout layout;
  bool runs;      // whether a channel's runs are summed on their own
  int super_row;  // in rows
  int unit;       // rows that are read together: lanes are cut at multiples of it
  Tiles tiles;
  int64_t lanes;       // >= 1
  int64_t block_rows;  // of a block that is read in one stream

  constexpr Lanes(int64_t outer, int64_t channels, int64_t inner)
      : layout(outer, channels, inner, kMaxSumPiece),
        runs(layout.inner >= kRunColumns),
        super_row(runs ? 1 : rows_per_super_row(layout.channels * layout.inner)),
        unit(runs ? rows_at_once(layout.piece) : super_row),
        tiles(layout, runs ? clamp(kRunTileElements / layout.piece, 1, kMaxRunTile) : kTileColumns / layout.inner),
        lanes(clamp(smaller(layout.rows() / min_lane_rows(), layout.elements() / tiles.count() / kMinTaskElements), 1,
                    smaller(max_lanes(layout.channels), larger(kMaxLanes / tiles.count(), 1)))),
        block_rows(runs ? run_rows(layout.piece) : kBlockRows * super_row) {}

  constexpr int64_t tasks() const { return lanes * tiles.count(); }
  constexpr int64_t lane(int64_t task) const { return task / tiles.count(); }
  constexpr Range lane_rows(int64_t lane) const { return part(layout.rows(), unit, lanes, lane); }
  constexpr Range rows(int64_t task) const { return lane_rows(lane(task)); }
  constexpr Range channels(int64_t task) const { return tiles[task % tiles.count()]; }

  // The columns of a channel. Those of a tile are [super_row][channels][width].
  constexpr int width() const { return runs ? kRunColumns : static_cast<int>(layout.inner); }
  // Those of a super-row of a tile.
  constexpr int64_t columns(Range channels) const { return channels.size() * width() * super_row; }

 private:
  static constexpr int rows_at_once(int64_t piece) { return is_short(piece) ? kChains : 1; }

  constexpr int64_t min_lane_rows() const {
    return divide_up(divide_up(runs ? kMinLaneRunElements : kMinLaneChannelElements, layout.piece), unit) * unit;
  }

  // As many as keep within kMaxAdditions: those in a chain, then one to the columns' sums for each stretch of a run, or
  // for each kChains rows.
  static constexpr int64_t run_rows(int64_t piece) {
    if (is_short(piece)) return (kMaxAdditions - divide_up(piece, kRunColumns)) * kChains;
    const int64_t groups = divide_up(piece, kChains * kRunColumns);
    return larger((kMaxAdditions - smaller(groups, kChain)) / divide_up(groups, kChain), 1);
  }
};

}  // namespace syncbn::cpu

#endif
