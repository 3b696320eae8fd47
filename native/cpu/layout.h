// How is a tensor [outer, channels, inner] walked? By rows: what one outer index has, [channels, inner], or of very
// long runs of a channel a piece of each.
#ifndef SYNCBN_CPU_LAYOUT_H
#define SYNCBN_CPU_LAYOUT_H

#include <stdint.h>

namespace syncbn::cpu {

// What a run's pieces are multiples of, but for the last.
constexpr int64_t kPieceUnit = 64;

struct Range {
  int64_t begin;
  int64_t end;

  constexpr int64_t size() const { return end - begin; }
};

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t clamp(int64_t value, int64_t low, int64_t high) { return larger(low, smaller(value, high)); }
constexpr int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// Part `index` of `parts` of [0, length), cut at multiples of `unit`. The last part takes what is left over.
constexpr Range part(int64_t length, int64_t unit, int64_t parts, int64_t index) {
  const int64_t units = length / unit;
  const int64_t each = units / parts;
  const int64_t more = units % parts;
  const int64_t begin = (index * each + smaller(index, more)) * unit;
  const int64_t next = index + 1;
  const int64_t end = next == parts ? length : (next * each + smaller(next, more)) * unit;
  return {begin, end};
}

// Part `index` of [0, length), cut into parts of `size`. The last takes what is left.
constexpr Range part_of_size(int64_t length, int64_t size, int64_t index) {
  return {index * size, smaller((index + 1) * size, length)};
}

struct Layout {
  int64_t outer;
  int64_t channels;
  int64_t inner;
  int64_t pieces;  // of a run, the `inner` neighbours of a channel; about as long as one another
  int64_t piece;   // elements of a channel in a row, at most

  // max_piece: a multiple of kPieceUnit.
  constexpr Layout(int64_t outer, int64_t channels, int64_t inner, int64_t max_piece)
      : outer(outer),
        channels(channels),
        inner(inner),
        pieces(divide_up(inner, max_piece)),
        piece(pieces > 1 ? max_piece : inner) {}

  constexpr int64_t elements() const { return outer * channels * inner; }
  constexpr int64_t rows() const { return outer * pieces; }

  // The elements of one channel in these rows.
  constexpr int64_t elements(Range rows) const { return elements_before(rows.end) - elements_before(rows.begin); }

  constexpr int64_t outer_of(int64_t row) const { return row / pieces; }
  // Of each channel's run, what is in this row.
  constexpr Range run(int64_t row) const { return part(inner, kPieceUnit, pieces, row % pieces); }
  constexpr int64_t index(int64_t outer_index, int64_t channel, int64_t inner_index) const {
    return (outer_index * channels + channel) * inner + inner_index;
  }

 private:
  constexpr int64_t elements_before(int64_t row) const { return row / pieces * inner + run(row).begin; }
};

// Tiles of channels, each worked on at once. Neighbouring runs follow one another in memory, so that a tile is read in
// long stretches; pieces of runs do not.
struct Tiles {
  int64_t channels;
  int64_t size;  // in channels, but for the last tile

  constexpr Tiles(const Layout &layout, int64_t size)
      : channels(layout.channels), size(layout.pieces > 1 ? 1 : smaller(layout.channels, size)) {}

  constexpr int64_t count() const { return divide_up(channels, size); }
  constexpr Range operator[](int64_t index) const { return part_of_size(channels, size, index); }
};

// Gives each of a tile's columns the value of its channel, `width` columns each: `values` begins with one per channel.
template <typename R>
void spread(R *values, int channels, int width) {
  for (int c = channels - 1; width > 1 && c >= 0; --c) {
    const R value = values[c];
    for (int i = 0; i < width; ++i) values[c * width + i] = value;
  }
}

// Calls each(outer, channel, inner, index) for every element in some rows of some channels, in memory order as far as
// these go.
template <typename Each>
void for_each_element(const Layout &layout, Range rows, Range channels, const Each &each) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t outer = layout.outer_of(row);
    const Range run = layout.run(row);
    for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
      for (int64_t i = run.begin; i < run.end; ++i) each(outer, channel, i, layout.index(outer, channel, i));
    }
  }
}

}  // namespace syncbn::cpu

#endif
