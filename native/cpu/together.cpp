// syncbn_cpu_forward, syncbn_cpu_backward: a whole direction of all replicas of a process, with the exchange of their
// rows. The same bits as the operations one by one.
//
// Algorithm: where a channel's elements are neighbours, block of channels by block of channels, so that the second
//            pass finds what the first has read in the caches. The tasks of all blocks are one sequence that the
//            threads of the pool draw from: the first pass of a block, then the second pass of the block before. Who
//            finishes the first pass of a block writes its rows and exchanges them; only then its second pass begins.
//            Otherwise the operations one after the other, replica by replica.
// Traffic:   as the operations, of which the second pass reads x (and dy) from the caches.
#include <algorithm>
#include <atomic>
#include <thread>

#include "call.h"
#include "operations.h"
#include "pool.h"
#include "whole.h"

namespace syncbn::cpu {
namespace {

// What the first pass of a block reads: with the block that follows it, less than the second-level caches of two cores.
constexpr int64_t kBlockBytes = int64_t{1} << 20;
constexpr int64_t kMaxBlocks = 1024;
// About a microsecond.
constexpr int kSpins = 30;

// The arguments of all replicas.
template <typename Args>
class Replicas {
 public:
  Replicas(const syncbn_address *addresses, int32_t count) : addresses_(addresses), count_(count) {}

  int32_t count() const { return count_; }
  const Args &operator[](int32_t rank) const { return *pointer<const Args>(addresses_[rank]); }
  Lanes lanes(int32_t rank) const {
    const Args &args = (*this)[rank];
    return Lanes(args.outer, args.channels, args.inner);
  }
  Map map(int32_t rank, int64_t max_channels) const {
    const Args &args = (*this)[rank];
    return Map(args.outer, args.channels, args.inner, max_channels);
  }

 private:
  const syncbn_address *const addresses_;
  const int32_t count_;
};

// Copies what every replica's own row has of some channels to all other replicas' rows; of no channels, the head.
template <typename Reduction>
void exchange(const Replicas<Reduction> &replicas, Range channels) {
  for (int32_t rank = 0; rank < replicas.count(); ++rank) {
    const Row from = row_of(replicas[rank]);
    const int64_t head = from.channels - from.head;
    for (int32_t other = 0; other < replicas.count(); ++other) {
      if (other == rank) continue;
      double *to = pointer<double>(replicas[other].rows) + rank * from.length;
      if (channels.size() == 0) std::copy_n(from.head, head, to);
      for (int section = 0; section < from.sections; ++section) {
        const int64_t at = section * replicas[rank].channels + channels.begin;
        std::copy_n(from.channels + at, channels.size(), to + head + at);
      }
    }
  }
}

// Whether an operation's mask or adjustment makes it go element by element.
bool plain(const syncbn_stats_args &args) { return args.mask == 0; }
bool plain(const syncbn_backward_reduce_args &args) { return args.mask == 0 && args.adjust_scale == 0; }
bool plain(const syncbn_normalize_args &args) { return args.adjust_scale == 0; }
bool plain(const syncbn_backward_input_args &args) { return args.mask == 0 && args.adjust_scale == 0; }

int64_t tensors_read(const syncbn_stats_args &) { return 1; }
int64_t tensors_read(const syncbn_backward_reduce_args &) { return 2; }

// How all replicas' tensors are cut into blocks of channels.
template <typename Reduction>
struct Blocks {
  int64_t channels;  // of a block, but for the last; 0: not to be cut
  int64_t count = 0;
  int64_t lanes = 0;      // of any replica, at most
  int64_t tiles = 0;      // of a block's first pass
  int64_t parts = 0;      // of any replica's second pass, at most
  int64_t map_tiles = 0;  // of a block's second pass

  explicit Blocks(const Replicas<Reduction> &replicas) : channels(channels_of(replicas)) {
    if (channels == 0) return;
    count = divide_up(replicas[0].channels, channels);
    for (int32_t rank = 0; rank < replicas.count(); ++rank) {
      const Map map = replicas.map(rank, channels);
      if (map.layout.outer > 0) lanes = larger(lanes, replicas.lanes(rank).lanes);
      parts = larger(parts, map.parts);
      map_tiles = divide_up(channels, map.tiles.size);
      tiles = divide_up(channels, tile_of(replicas[rank]));
    }
  }

  Range of(int64_t block, int64_t all) const { return part_of_size(all, channels, block); }

 private:
  static int64_t tile_of(const Reduction &args) { return Lanes(1, args.channels, args.inner).tiles.size; }

  static int64_t channels_of(const Replicas<Reduction> &replicas) {
    const Reduction &first = replicas[0];
    int64_t elements = 0;  // of a channel, in all replicas
    for (int32_t rank = 0; rank < replicas.count(); ++rank) {
      const Reduction &args = replicas[rank];
      if (!plain(args) || args.dtype != first.dtype || args.inner != first.inner) return 0;
      elements += args.outer * args.inner;
    }
    if (first.inner < kRunColumns || elements == 0) return 0;
    const int64_t tile = tile_of(first);
    const int64_t bytes = elements * tensors_read(first) * element_size(first.dtype) * tile;
    const int64_t most = kTableEntries / kTableOverlap / tile;
    const int64_t tiles = clamp(larger(kBlockBytes / bytes, divide_up(first.channels, kMaxBlocks * tile)), 1, most);
    const bool few = divide_up(first.channels, tiles * tile) <= kMaxBlocks;
    return few && tiles * tile < first.channels ? tiles * tile : 0;
  }
};

// The passes of all blocks, as one sequence of tasks.
template <typename Reduction, typename Mapping>
class Sequence {
 public:
  Sequence(const Replicas<Reduction> &reductions, const Replicas<Mapping> &mappings, const Blocks<Reduction> &blocks)
      : reductions_(reductions),
        mappings_(mappings),
        blocks_(blocks),
        channels_(reductions[0].channels),
        first_(reductions.count() * blocks.lanes * blocks.tiles),
        second_(mappings.count() * blocks.parts * blocks.map_tiles) {
    for (int64_t block = 0; block < blocks.count; ++block) missing_[block].store(first_, std::memory_order_relaxed);
  }

  // The first pass of every block, and behind that of the next one its second pass.
  int64_t tasks() const { return (blocks_.count + 1) * (first_ + second_); }

  void run(int64_t task) {
    const int64_t block = task / (first_ + second_);
    const int64_t i = task % (first_ + second_);
    if (i < first_) {
      if (block < blocks_.count) sum_part(block, i);
    } else if (block > 0) {
      map_part(block - 1, i - first_);
    }
  }

 private:
  static constexpr int64_t kExchanged = -1;

  void sum_part(int64_t block, int64_t i) {
    const int32_t rank = static_cast<int32_t>(i / (blocks_.lanes * blocks_.tiles));
    if (reductions_[rank].outer > 0) {
      const Lanes lanes = reductions_.lanes(rank);
      const int64_t lane = i / blocks_.tiles % blocks_.lanes;
      const int64_t tile = block * blocks_.tiles + i % blocks_.tiles;
      if (lane < lanes.lanes && tile < lanes.tiles.count()) {
        syncbn::cpu::sum(reductions_[rank], lanes, lane * lanes.tiles.count() + tile);
      }
    }
    if (missing_[block].fetch_sub(1, std::memory_order_acq_rel) == 1) {
      write_rows(blocks_.of(block, channels_));
      missing_[block].store(kExchanged, std::memory_order_release);
    }
  }

  void write_rows(Range channels) {
    for (int32_t rank = 0; rank < reductions_.count(); ++rank) {
      if (reductions_[rank].outer > 0) {
        const Lanes lanes = reductions_.lanes(rank);
        write_sums(reductions_[rank], &lanes, channels);
      } else {
        write_sums(reductions_[rank], nullptr, channels);
      }
      // All channels have one count, that of the first block.
      if (channels.begin == 0) write_head(reductions_[rank]);
    }
    if (channels.begin == 0) exchange(reductions_, {0, 0});
    exchange(reductions_, channels);
  }

  void map_part(int64_t block, int64_t i) {
    const int32_t rank = static_cast<int32_t>(i / (blocks_.parts * blocks_.map_tiles));
    const Map map = mappings_.map(rank, blocks_.channels);
    const int64_t part = i % blocks_.parts;
    const int64_t tile = block * blocks_.map_tiles + i / blocks_.parts % blocks_.map_tiles;
    if (map.layout.outer == 0 || part >= map.parts || tile >= map.tiles.count()) return;
    await_rows(0);  // with it came the heads
    await_rows(block);
    const int64_t task = tile * map.parts + part;
    Tasks one(task, task + 1);
    syncbn::cpu::map(mappings_[rank], map, one);
  }

  // Tasks are drawn in order: whoever has the first pass of the block is at it.
  void await_rows(int64_t block) const {
    for (int spins = 0; missing_[block].load(std::memory_order_acquire) != kExchanged; ++spins) {
      if (spins < kSpins) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  const Replicas<Reduction> &reductions_;
  const Replicas<Mapping> &mappings_;
  const Blocks<Reduction> &blocks_;
  const int64_t channels_;
  const int64_t first_;   // tasks of a block's first pass
  const int64_t second_;  // and of its second
  std::atomic<int64_t> missing_[kMaxBlocks];
};

// Whether all replicas' arguments are right, and those of one step.
template <typename Reduction, typename Mapping>
int check(int32_t count, const syncbn_address *reductions, const syncbn_address *mappings) {
  Error &error = thread_error();
  if (count < 1) return fail(error, SYNCBN_INVALID_ARGUMENT, "replicas is %d; it must be at least 1", count);
  const Replicas<Reduction> reductions_of(reductions, count);
  const Replicas<Mapping> mappings_of(mappings, count);
  for (int32_t rank = 0; rank < count; ++rank) {
    const Reduction *reduction = &reductions_of[rank];
    const Mapping *mapping = &mappings_of[rank];
    if (const int status = check(reduction, error)) return status;
    if (const int status = check(mapping, error)) return status;
    Requirements r(error);
    r.require(reduction->rank == rank && reduction->world_size == count && mapping->world_size == count,
              SYNCBN_INVALID_ARGUMENT, "replica %d of %d has rank %d and world_size %d and %d", rank, count,
              reduction->rank, reduction->world_size, mapping->world_size);
    r.require(reduction->rows != 0 && reduction->rows == mapping->rows, SYNCBN_INVALID_ARGUMENT,
              "replica %d has not one rows for both operations", rank);
    r.require(reduction->dtype == mapping->dtype && reduction->outer == mapping->outer &&
                  reduction->channels == mapping->channels && reduction->inner == mapping->inner,
              SYNCBN_INVALID_ARGUMENT, "the operations of replica %d differ in dtype or shape", rank);
    r.require(row_of(*reduction).length == row_of(reductions_of[0]).length, SYNCBN_INVALID_ARGUMENT,
              "replica %d brings a row of %lld float64, replica 0 of %lld", rank,
              static_cast<long long>(row_of(*reduction).length),
              static_cast<long long>(row_of(reductions_of[0]).length));
    if (!r.hold()) return r.status();
  }
  return SYNCBN_OK;
}

template <typename Reduction, typename Mapping>
int run(int32_t count, const syncbn_address *reductions, const syncbn_address *mappings) {
  if (const int status = check<Reduction, Mapping>(count, reductions, mappings)) return status;
  const DefaultFloatEnvironment environment;
  const Replicas<Reduction> reductions_of(reductions, count);
  const Replicas<Mapping> mappings_of(mappings, count);
  const Blocks<Reduction> blocks(reductions_of);
  bool together = blocks.channels > 0;
  for (int32_t rank = 0; rank < count; ++rank) together = together && plain(mappings_of[rank]);
  if (together) {
    Sequence<Reduction, Mapping> sequence(reductions_of, mappings_of, blocks);
    share(reductions_of[0].stream, sequence.tasks(), [&](Tasks &tasks) {
      for (int64_t task; (task = tasks.next()) >= 0;) sequence.run(task);
    });
    for (int32_t rank = 0; rank < count; ++rank) finish(mappings_of[rank]);
    return SYNCBN_OK;
  }
  for (int32_t rank = 0; rank < count; ++rank) reduce(reductions_of[rank]);
  exchange(reductions_of, {0, 0});
  exchange(reductions_of, {0, reductions_of[0].channels});
  for (int32_t rank = 0; rank < count; ++rank) map(mappings_of[rank]);
  return SYNCBN_OK;
}

}  // namespace
}  // namespace syncbn::cpu

extern "C" {

int32_t syncbn_cpu_forward(int32_t replicas, const syncbn_address *stats, const syncbn_address *normalize) {
  return syncbn::cpu::run<syncbn_stats_args, syncbn_normalize_args>(replicas, stats, normalize);
}

int32_t syncbn_cpu_backward(int32_t replicas, const syncbn_address *reduce, const syncbn_address *input) {
  return syncbn::cpu::run<syncbn_backward_reduce_args, syncbn_backward_input_args>(replicas, reduce, input);
}

}  // extern "C"
