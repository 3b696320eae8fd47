// Which inner loops run on this processor? The same source compiled for several instruction sets, with equal bits.
//
// Every loop works on columns that do not depend on one another, in an order of additions that is fixed by its
// arguments, and no multiplication is contracted with an addition: so the width of the vectors changes the speed alone.
#ifndef SYNCBN_CPU_LOOPS_H
#define SYNCBN_CPU_LOOPS_H

#include <stdint.h>

namespace syncbn::cpu {

// y = (x - shift) * scale + offset, per column.
struct AffineTable {
  const float *shift;
  const float *scale;
  const float *offset;
};

// dx = dy * scale + ((x - shift) * slope + offset), per column.
struct GradientTable {
  const float *shift;
  const float *scale;
  const float *slope;
  const float *offset;
};

// A table serves a run of elements, of which element i takes column i % period. So that a vector may begin at any
// column, the arrays go on for kTableOverlap entries after the period, with those from its start. period >=
// kTableOverlap.
constexpr int kTableOverlap = 16;

struct Loops {
  const char *name;

  // sums += sum of (x - shift) and squares += sum of (x - shift)^2 over the rows, per column. Row r is at x + r *
  // stride.
  void (*moments)(const float *x, int64_t stride, int rows, int columns, const float *shift, float *sums,
                  float *squares);

  // sums += sum of dy and products += sum of dy * (x - shift) over the rows, per column.
  void (*products)(const float *x, const float *dy, int64_t stride, int rows, int columns, const float *shift,
                   float *sums, float *products);

  // stream: write y around the caches. x and y may be the same.
  void (*normalize)(const float *x, float *y, int64_t elements, const AffineTable &table, int period, bool stream);

  // dy and dx may be the same.
  void (*gradient)(const float *x, const float *dy, float *dx, int64_t elements, const GradientTable &table, int period,
                   bool stream);
};

extern const Loops kBaselineLoops;
#if defined(__x86_64__)
extern const Loops kAvx2Loops;
extern const Loops kAvx512Loops;
#endif

// The widest that the processor has. The environment variable SYNCBN_CPU_ISA, read once, sets a limit: baseline, avx2
// or avx512 (the default).
const Loops &loops();

}  // namespace syncbn::cpu

#endif
