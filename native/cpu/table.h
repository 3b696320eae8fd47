// How is a tensor mapped element by element? Tables of per-channel factors, and the tasks that use them.
#ifndef SYNCBN_CPU_TABLE_H
#define SYNCBN_CPU_TABLE_H

#include <stdint.h>

#include "lanes.h"
#include "loops.h"
#include "pool.h"

namespace syncbn::cpu {

// Room for one factor of a tile's columns.
constexpr int kTableRoom = kTileColumns + kTableOverlap;

// Below this, a table is repeated, so that a run over it is long.
constexpr int kMinPeriod = 512;
// Elements of a task: enough to pay for drawing it, few enough that threads end together.
constexpr int64_t kTaskElements = 65536;
// From here on an output does not stay in the caches until it is read again, and is better written around them. Bytes
// of the tensors that are read and written.
constexpr int64_t kStreamBytes = int64_t{8} << 20;

// How one [outer, channels] tensor is cut for element-wise work. A task is a run of rows in one tile of columns; a tile
// that holds all columns is one contiguous run.
struct Map {
  int64_t outer;
  int64_t channels;
  int64_t tiles;
  int64_t parts;  // of the rows

  constexpr Map(int64_t outer, int64_t channels)
      : outer(outer),
        channels(channels),
        tiles((channels + kTileColumns - 1) / kTileColumns),
        parts(clamp(outer * channels / tiles / kTaskElements, 1, outer < 1 ? 1 : outer)) {}

  constexpr int64_t tasks() const { return outer == 0 ? 0 : tiles * parts; }
  constexpr int64_t tile(int64_t task) const { return task / parts; }
  constexpr Range rows(int64_t task) const { return part(outer, 1, parts, task % parts); }
  constexpr Range columns(int64_t task) const {
    const int64_t begin = tile(task) * kTileColumns;
    return {begin, begin + kTileColumns < channels ? begin + kTileColumns : channels};
  }
};

// The columns of a tile, repeated up to kMinPeriod.
constexpr int table_period(int columns) {
  return columns >= kMinPeriod ? columns : (kMinPeriod + columns - 1) / columns * columns;
}

// Continues the first `columns` factors periodically over the table.
inline void repeat_factor(float *factor, int columns) {
  const int end = table_period(columns) + kTableOverlap;
  for (int i = columns; i < end; ++i) factor[i] = factor[i - columns];
}

// Calls make(columns) whenever a thread comes to another tile, then run(begin, elements) for each contiguous run.
template <typename Make, typename Run>
void map_tasks(const Map &map, Tasks &tasks, const Make &make, const Run &run) {
  int64_t tile = -1;
  for (int64_t task; (task = tasks.next()) >= 0;) {
    const Range columns = map.columns(task);
    if (map.tile(task) != tile) make(columns);
    tile = map.tile(task);
    const Range rows = map.rows(task);
    const int64_t width = columns.end - columns.begin;
    if (map.tiles == 1) {
      run(rows.begin * width, (rows.end - rows.begin) * width);
    } else {
      for (int64_t row = rows.begin; row < rows.end; ++row) run(row * map.channels + columns.begin, width);
    }
  }
}

}  // namespace syncbn::cpu

#endif
