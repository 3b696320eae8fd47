// What do the rows of all ranks say? Their merge in rank order, and whether they belong to one step.
#ifndef SYNCBN_CPU_ROWS_H
#define SYNCBN_CPU_ROWS_H

#include <stdint.h>

#include "syncbn.h"

namespace syncbn::cpu {

// Channels whose float64 intermediates fit on the stack and in the first-level cache.
constexpr int kRowChannels = 256;

// Count, mean and M2 of all ranks' elements, of channels [first, first + channels), channels <= kRowChannels.
void merge_forward_rows(const syncbn_normalize_args &args, int64_t first, int channels, double *count, double *mean,
                        double *m2);

// The two sums of all ranks, of channels [first, first + channels), channels <= kRowChannels.
void merge_backward_rows(const syncbn_backward_input_args &args, int64_t first, int channels, double *sum_dy,
                         double *sum_dy_xhat);

// Whether this step may change state: every row carries `signature`, and the step was not given up. Tells the host of
// the first rank that differs, unless it was told of another already. row_length is in float64.
bool accept_rows(const double *rows, int64_t row_length, int32_t world_size, double signature, syncbn_address control);

}  // namespace syncbn::cpu

#endif
