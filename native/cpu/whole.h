// How does one replica's operation run on its own? All of its tasks, shared by the threads of a pool.
#ifndef SYNCBN_CPU_WHOLE_H
#define SYNCBN_CPU_WHOLE_H

#include <string.h>

#include "call.h"
#include "operations.h"
#include "pool.h"

namespace syncbn::cpu {

// Channels of whose lanes one thread merges what they left.
constexpr int64_t kMergeChannels = 256;

// Args: those of stats or backward_reduce.
template <typename Args>
void reduce(const Args &args) {
  if (args.rows) {
    const auto length = static_cast<size_t>(row_of(args).length * args.world_size);
    memset(pointer<double>(args.rows), 0, length * sizeof(double));
  }
  if (has_elements(args.outer, args.inner)) {
    const Lanes lanes(args.outer, args.channels, args.inner);
    share(args.stream, lanes.tasks(), [&](Tasks &tasks) {
      for (int64_t task; (task = tasks.next()) >= 0;) sum(args, lanes, task);
    });
    share(args.stream, divide_up(args.channels, kMergeChannels), [&](Tasks &tasks) {
      for (int64_t task; (task = tasks.next()) >= 0;) {
        write_sums(args, &lanes, part_of_size(args.channels, kMergeChannels, task));
      }
    });
  } else {
    write_sums(args, nullptr, {0, args.channels});
  }
  write_head(args);
}

// Args: those of normalize or backward_input.
template <typename Args>
void map(const Args &args) {
  const Map whole(args.outer, args.channels, args.inner);
  share(args.stream, whole.tasks(), [&](Tasks &tasks) { map(args, whole, tasks); });
  finish(args);
}

}  // namespace syncbn::cpu

#endif
