// Which inner loops run on this processor? The same source compiled for several instruction sets, with equal bits.
//
// Every loop works on columns that do not depend on one another, in an order of additions that is fixed by its
// arguments, and what is rounded once is spelled out: so the width of the vectors changes the speed alone.
#ifndef SYNCBN_CPU_LOOPS_H
#define SYNCBN_CPU_LOOPS_H

#include <stdint.h>

#include "element.h"

namespace syncbn::cpu {

// Where a gradient passes a ReLU.
enum class Gate {
  kOpen,   // there was no ReLU
  kBytes,  // where relu_mask is not 0
  kValue   // where the value before the ReLU, computed again, is above 0
};

// v = (x - shift) * scale + offset, per column.
template <typename R>
struct AffineTable {
  const R *shift;
  const R *scale;
  const R *offset;
};

// dx = g * scale + ((x - shift) * slope + constant), per column; gate: v = (x - shift) * scale + offset.
template <typename R>
struct GradientTable {
  AffineTable<R> value;
  const R *slope;
  const R *constant;
};

// How the elements of a run find their entries of a table. After the last entry comes the first again: so that a vector
// may begin anywhere, the arrays go on for kTableOverlap entries after `period`, with those from their start.
struct Walk {
  int period;     // entries
  int first;      // entry, of a span's first element
  int64_t inner;  // 0: an entry for each element. Otherwise >= kTableOverlap: kTableOverlap equal entries for each
                  // `inner` elements. A vector that begins in one channel and ends in the next begins so many entries
                  // before the next one's as it has elements of the first.
};
constexpr int kTableOverlap = 16;

template <typename T>
struct ForwardTensors {
  const T *x;
  T *y;
  const T *residual;   // or null
  uint8_t *relu_mask;  // or null
  bool relu;
  bool stream;  // write y around the caches; drain_streaming is the caller's
};

template <typename T>
struct ReduceTensors {
  const T *x;
  const T *dy;
  T *dresidual;  // out: g; or null
  const uint8_t *relu_mask;
  Gate gate;
};

template <typename T>
struct BackwardTensors {
  const T *x;  // null: dx = g * scale, and the gate is open
  const T *dy;
  T *dx;
  bool relu;      // g is dy where v > 0, else 0; otherwise g is dy
  bool training;  // false: dx = g * scale
  bool stream;    // as above
};

// Rows of columns: row r of stream s begins r * stride + s * gap elements behind the first.
struct Rows {
  int64_t stride;
  int64_t gap;
  int count;    // of each stream
  int streams;  // 1 or kStreams
};

// Runs of neighbouring channels, of one row or of kChains rows.
struct Runs {
  int64_t apart;  // from the begin of one to the next's, in elements
  int64_t gap;    // from row to row
  int count;
  int length;
  int rows;  // 1 or kChains
};

// Rows of elements that find the same entries in a table.
struct Span {
  int64_t begin;
  int64_t apart;
  int64_t rows;
  int64_t elements;  // of a row
};
// Rows that share what is loaded of a table.
constexpr int kSpanRows = 4;

// What a block counts for in a lane.
struct BlockWeights {
  double mean;  // those of a Merge (merge.h)
  double m2;
  double each;  // 1 / the elements of a channel in the block
};

// offset: of the elements in the tensors.
template <typename T>
struct ElementLoops {
  using R = Real<T>;

  // sums += sum of (x - shift) and squares += sum of (x - shift)^2 over the rows, per column.
  void (*moments_of_columns)(const T *x, const Rows &rows, int columns, const R *shift, R *sums, R *squares);
  // The same with one shift for each run, and kRunColumns sums.
  void (*moments_of_runs)(const T *x, const Runs &runs, const R *shift, R *sums, R *squares);

  // sums += sum of g and products += sum of g * (x - shift), likewise.
  void (*products_of_columns)(const ReduceTensors<T> &tensors, int64_t offset, const Rows &rows, int columns,
                              const AffineTable<R> &table, R *sums, R *products);
  void (*products_of_runs)(const ReduceTensors<T> &tensors, int64_t offset, const Runs &runs,
                           const AffineTable<R> &table, R *sums, R *products);

  // totals[c] += the sum of columns [c * width, (c + 1) * width).
  void (*fold)(const R *columns, int channels, int width, double *totals);

  // Merges a block into the channels' mean and m2. sums and squares: of x minus the mean as an R, of the one column
  // that a channel has, or folded.
  void (*merge_columns)(const R *sums, const R *squares, int channels, const BlockWeights &weights, double *mean,
                        double *m2);
  void (*merge_block)(const double *sums, const double *squares, int channels, const BlockWeights &weights,
                      double *mean, double *m2);

  // y = v + residual, or its positive part. y may be x or residual.
  void (*normalize)(const ForwardTensors<T> &tensors, const Span &span, const AffineTable<R> &table, const Walk &walk);

  // dy and dx may be the same.
  void (*gradient)(const BackwardTensors<T> &tensors, const Span &span, const GradientTable<R> &table,
                   const Walk &walk);
};

struct Loops {
  const char *name;
  ElementLoops<float> float32;
  ElementLoops<Half> float16;
  ElementLoops<Bfloat16> bfloat16;
  ElementLoops<double> float64;
};

extern const Loops kBaselineLoops;
#if defined(__x86_64__)
extern const Loops kAvx2Loops;
extern const Loops kAvx512Loops;
// Whether kAvx512Loops store bfloat16 with the instruction for it.
extern const bool kBfloat16Instruction;
#endif

// The widest that the processor has. The environment variable SYNCBN_CPU_ISA, read once, sets a limit: baseline, avx2,
// or avx512 without the instruction for bfloat16.
const Loops &loops();

template <typename T>
const ElementLoops<T> &loops_of() {
  if constexpr (std::is_same_v<T, float>) {
    return loops().float32;
  } else if constexpr (std::is_same_v<T, Half>) {
    return loops().float16;
  } else if constexpr (std::is_same_v<T, Bfloat16>) {
    return loops().bfloat16;
  } else {
    return loops().float64;
  }
}

}  // namespace syncbn::cpu

#endif
