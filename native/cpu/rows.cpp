#include "rows.h"

#include "call.h"
#include "merge.h"

namespace syncbn::cpu {
namespace {

void report(syncbn_control *control, int32_t rank, double expected, double found) {
  control->expected = expected;
  control->found = found;
  __atomic_store_n(&control->mismatch, static_cast<uint32_t>(rank) + 1, __ATOMIC_RELEASE);
}

}  // namespace

void merge_forward_rows(const syncbn_normalize_args &args, int64_t first, int channels, double *count, double *mean,
                        double *m2) {
  const int64_t length = forward_row_length(args.channels, args.channel_counts != 0);
  const int64_t counts = args.channel_counts ? channels : 1;
  for (int c = 0; c < channels; ++c) count[c] = mean[c] = m2[c] = 0;
  for (int32_t rank = 0; rank < args.world_size; ++rank) {
    const double *row = pointer<const double>(args.rows) + rank * length;
    const double *row_mean = row + kForwardRowHead + first;
    const double *row_m2 = row_mean + args.channels;
    merge({count, mean, m2}, {args.channel_counts ? row_m2 + args.channels : row + 1, row_mean, row_m2}, counts,
          channels);
  }
  for (int64_t c = counts; c < channels; ++c) count[c] = count[0];
}

void merge_backward_rows(const syncbn_backward_input_args &args, int64_t first, int channels, double *sum_dy,
                         double *sum_dy_xhat) {
  for (int c = 0; c < channels; ++c) {
    sum_dy[c] = 0;
    sum_dy_xhat[c] = 0;
  }
  for (int32_t rank = 0; rank < args.world_size; ++rank) {
    const double *row = pointer<const double>(args.rows) + rank * backward_row_length(args.channels);
    const double *row_dy = row + kBackwardRowHead + first;
    const double *row_dy_xhat = row_dy + args.channels;
    for (int c = 0; c < channels; ++c) {
      sum_dy[c] += row_dy[c];
      sum_dy_xhat[c] += row_dy_xhat[c];
    }
  }
}

bool accept_rows(const double *rows, int64_t row_length, int32_t world_size, double signature, syncbn_address address) {
  syncbn_control *control = pointer<syncbn_control>(address);
  // The rows of a step that was given up are garbage: neither state nor a report may come of them.
  if (__atomic_load_n(&control->aborted, __ATOMIC_ACQUIRE) != 0) return false;
  // What comes after a step of which the replicas did different things is not what they meant either.
  if (__atomic_load_n(&control->mismatch, __ATOMIC_ACQUIRE) != 0) return false;
  for (int32_t rank = 0; rank < world_size; ++rank) {
    const double found = rows[rank * row_length];
    if (found == signature) continue;
    report(control, rank, signature, found);
    return false;
  }
  return true;
}

}  // namespace syncbn::cpu
