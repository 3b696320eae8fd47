// How do the ranks of a communicator meet, be they threads of one process or processes?
//
// Through a shared-memory segment whose name is in the ncclUniqueId: counters and a slot for each rank. Fresh pages are
// zero, so nobody has to initialize it, and it is unlinked once all ranks have it.
#ifndef SYNCBN_SIM_CLIQUE_H
#define SYNCBN_SIM_CLIQUE_H

#include <nccl.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace syncbn::sim {

// What a rank brings to a collective. Ranks that bring different things hang, or get garbage.
struct Collective {
  uint64_t count;
  int32_t type;
  int32_t operation;  // -1: broadcast
  int32_t root;

  bool operator==(const Collective &other) const {
    return count == other.count && type == other.type && operation == other.operation && root == other.root;
  }
};

class Clique {
 public:
  // Throws std::runtime_error where the segment cannot be had, or is one of another size.
  Clique(const std::string &name, uint64_t seed, int ranks, int rank, int device);
  ~Clique();
  Clique(const Clique &) = delete;
  Clique &operator=(const Clique &) = delete;
  // Takes the segment's name away where some rank never came; else that has been done.
  void unlink_unless_complete();

  const std::string name;
  const uint64_t seed;
  const int ranks, rank;

  // Frees every wait of this rank, for good; its peers wait on.
  void abort() { aborted_ = true; }
  bool aborted() const { return aborted_; }

  // The functions below return false where this rank was aborted while it waited.
  bool wait_for_all();
  // The ranks' devices, once all are there.
  std::vector<int> devices() const;
  // The connections that real ranks make in their first collective: says that this rank is in it; waits for the others.
  void announce_first_collective();
  bool wait_for_first_collective();
  // One collective, in the order of the calls. The arguments are this rank's.
  bool all_reduce(const Collective &collective, const void *send, void *receive);
  bool broadcast(const Collective &collective, const void *send, void *receive);
  // Splits: announce color and key, then learn the others'.
  struct Choice {
    int color, key, rank;
  };
  void announce_split(int color, int key);
  bool wait_for_split(std::vector<Choice> *choices);
  int splits() const { return static_cast<int>(splits_); }

 private:
  struct Slot;
  struct Segment;
  template <typename Ready>
  bool wait(const char *what, Ready ready);
  Slot &slot(int of) const;
  // One round: deposits bytes, waits for everybody's, lets `use` read them. `use` learns whether all brought the same.
  template <typename Use>
  bool round(const Collective &collective, const void *bytes, size_t size, Use use);
  bool mismatch(void *receive, size_t size);

  std::mutex one_at_a_time_;  // a communicator's collectives do not overlap, on whatever streams they are
  Segment *segment_ = nullptr;
  size_t size_;
  std::atomic<bool> aborted_{false};
  uint64_t round_ = 0, splits_ = 0;
};

}  // namespace syncbn::sim

#endif
