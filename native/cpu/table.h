// How is a tensor mapped element by element? Tables of per-channel factors, and the tasks that use them.
#ifndef SYNCBN_CPU_TABLE_H
#define SYNCBN_CPU_TABLE_H

#include <stdint.h>

#include <algorithm>

#include "lanes.h"
#include "loops.h"
#include "pool.h"

namespace syncbn::cpu {

// Room for one factor of a tile's channels.
constexpr int kTableEntries = 2048;
constexpr int kTableRoom = kTableEntries + kTableOverlap;

// Entries of a table that much of the first-level cache goes to: rows share what is loaded of it.
constexpr int kLargeTable = 2048;

// Below this, a table is repeated, so that a run over it is long.
constexpr int kMinPeriod = 512;
// Elements of a task: few enough that threads end together, but enough to pay for drawing it.
constexpr int64_t kTaskElements = 65536;
constexpr int64_t kMinTasks = 8;
constexpr int64_t kMinMapElements = 8192;
// From here on an output does not stay in the caches until it is read again, and is better written around them. Bytes
// of the tensors that are read and written.
constexpr int64_t kStreamBytes = int64_t{4} << 20;

// How one tensor is cut for element-wise work. A task is a part of the rows in one tile of channels.
struct Map {
  Layout layout;
  int width;  // entries of a channel in a table
  Tiles tiles;
  int64_t parts;  // of the rows

  // max_channels: of a tile.
  constexpr Map(int64_t outer, int64_t channels, int64_t inner, int64_t max_channels = kTableEntries)
      : layout(outer, channels, inner, kTaskElements),
        width(static_cast<int>(clamp(inner, 1, kTableOverlap))),
        tiles(layout, smaller(max_channels, kTableEntries / width)),
        parts(clamp(layout.elements() / tiles.count() / task_elements(), 1, larger(layout.rows(), 1))) {}

  constexpr int64_t tasks() const { return layout.rows() == 0 ? 0 : tiles.count() * parts; }
  constexpr int64_t tile(int64_t task) const { return task / parts; }
  // From the last ones on: what the first pass has read last may still be in the caches.
  constexpr Range rows(int64_t task) const { return part(layout.rows(), 1, parts, parts - 1 - task % parts); }
  constexpr Range channels(int64_t task) const { return tiles[tile(task)]; }

 private:
  constexpr int64_t task_elements() const {
    return clamp(layout.elements() / kMinTasks, kMinMapElements, kTaskElements);
  }
};

// The entries of some channels, repeated until whole vectors fill them, if that is possible, and up to kMinPeriod.
constexpr int table_period(int entries) {
  int period = entries;
  while (period % kMaxVector != 0 && 2 * period <= kTableEntries) period *= 2;
  return period >= kMinPeriod ? period : (kMinPeriod + period - 1) / period * period;
}

// Makes a table of one factor of each of a tile's channels, in place.
template <typename R>
void to_table(const Map &map, int channels, R *factor) {
  spread(factor, channels, map.width);
  const int entries = channels * map.width;
  const int end = table_period(entries) + kTableOverlap;
  for (int filled = entries; filled < end;) {
    const int more = filled < end - filled ? filled : end - filled;
    std::copy_n(factor, more, factor + filled);
    filled += more;
  }
}

// Makes what the thread wrote around the caches visible to other threads before anything that follows. It waits for the
// memory: once for many rows.
inline void drain_streaming() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

// Calls make(channels) whenever a thread comes to another tile, then run(rows, channels).
template <typename Make, typename Run>
void for_each_tile(const Map &map, Tasks &tasks, const Make &make, const Run &run) {
  int64_t tile = -1;
  for (int64_t task; (task = tasks.next()) >= 0;) {
    if (map.tile(task) != tile) make(map.channels(task));
    tile = map.tile(task);
    run(map.rows(task), map.channels(task));
  }
}

// Calls run(span, walk) for spans that together have every element of a task.
template <typename Run>
void for_each_span(const Map &map, Range rows, Range channels, const Run &run) {
  const Layout &layout = map.layout;
  const int entries = static_cast<int>(channels.size()) * map.width;
  const int period = table_period(entries);
  const Walk walk = {period, 0, map.width < kTableOverlap ? 0 : layout.inner};
  const int64_t row = layout.channels * layout.inner;
  // Long runs need little of a table at a time, and a small one stays in the cache.
  const bool large = is_short(layout.inner) && entries >= kLargeTable;
  if (layout.pieces == 1 && large) {
    run(Span{layout.index(rows.begin, channels.begin, 0), row, rows.size(), channels.size() * layout.inner}, walk);
  } else if (layout.pieces == 1 && channels.size() == layout.channels) {
    // Elements at the begin of a vector find entries at the begin of a vector.
    const int first = walk.inner == 0 ? static_cast<int>(rows.begin * row % period) : 0;
    run(Span{rows.begin * row, 0, 1, rows.size() * row}, Walk{period, first, walk.inner});
  } else {
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const Range inner = layout.run(i);
      const int64_t begin = layout.index(layout.outer_of(i), channels.begin, inner.begin);
      run(Span{begin, 0, 1, channels.size() * inner.size()}, walk);
    }
  }
}

}  // namespace syncbn::cpu

#endif
