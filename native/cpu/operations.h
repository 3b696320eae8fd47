// What does an operation do in one task? The parts of the four operations, so that one caller may run them whole, and
// another block of channels by block of channels.
#ifndef SYNCBN_CPU_OPERATIONS_H
#define SYNCBN_CPU_OPERATIONS_H

#include <stdint.h>

#include "lanes.h"
#include "syncbn.h"
#include "table.h"

namespace syncbn::cpu {

// A reduction's row in its replica's rows.
struct Row {
  double *head;      // the signature and what else is not per channel
  double *channels;  // [sections][channels]
  int64_t length;    // of head and sections together, in float64
  int sections;
};
Row row_of(const syncbn_stats_args &args);
Row row_of(const syncbn_backward_reduce_args &args);  // null where there are no rows

// Sums up what one of the tasks of `lanes` has, into the workspace.
void sum(const syncbn_stats_args &args, const Lanes &lanes, int64_t task);
void sum(const syncbn_backward_reduce_args &args, const Lanes &lanes, int64_t task);

// Of some channels of which all tasks have been summed: merges the lanes, writes the row and the gradients.
// lanes: null where there are no elements.
void write_sums(const syncbn_stats_args &args, const Lanes *lanes, Range channels);
void write_sums(const syncbn_backward_reduce_args &args, const Lanes *lanes, Range channels);
// Once the above was called for all channels.
void write_head(const syncbn_stats_args &args);
void write_head(const syncbn_backward_reduce_args &args);

// Maps the elements of the tasks that this thread gets.
void map(const syncbn_normalize_args &args, const Map &map, Tasks &tasks);
void map(const syncbn_backward_input_args &args, const Map &map, Tasks &tasks);

// Once all elements are mapped: saved, the state, and what of the rows the host has to know.
void finish(const syncbn_normalize_args &args);
void finish(const syncbn_backward_input_args &args);

}  // namespace syncbn::cpu

#endif
