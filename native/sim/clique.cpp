// The shared segment and the rounds in which ranks exchange bytes. See clique.h.
#include "clique.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "reduce.h"
#include "sim.h"

namespace syncbn::sim {

namespace {

constexpr size_t kSlotBytes = 256u << 10;  // larger collectives take several rounds
constexpr int kTellAfterSeconds = 10;      // a wait this long is reported, once

std::runtime_error system_error(const char *what) {
  return std::runtime_error(format("%s: %s", what, strerror(errno)));
}

}  // namespace

struct Clique::Slot {
  std::atomic<uint64_t> deposited, taken;  // rounds
  std::atomic<uint64_t> choosing, chosen;  // splits
  std::atomic<uint32_t> in_first_collective;
  int32_t device;
  int32_t color, key;
  Collective collective;
  alignas(64) char bytes[kSlotBytes];
};

struct Clique::Segment {
  std::atomic<uint32_t> ranks;  // as the first to come said
  std::atomic<uint32_t> here;
  alignas(64) Slot slots[1];  // one a rank
};

Clique::Slot &Clique::slot(int of) const { return segment_->slots[of]; }

Clique::Clique(const std::string &name, uint64_t seed, int ranks, int rank, int device)
    : name(name),
      seed(seed),
      ranks(ranks),
      rank(rank),
      size_(sizeof(Segment) + static_cast<size_t>(ranks - 1) * sizeof(Slot)) {
  const int file = shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
  if (file < 0) throw system_error("shm_open");
  // Allocated here and now, since a page that /dev/shm cannot give later is a SIGBUS.
  const int error = posix_fallocate(file, 0, static_cast<off_t>(size_));
  void *memory = error ? MAP_FAILED : mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (error) errno = error;
  const std::runtime_error refused = system_error("a segment in /dev/shm");
  close(file);
  if (memory == MAP_FAILED) {
    shm_unlink(name.c_str());
    throw refused;
  }
  segment_ = static_cast<Segment *>(memory);
  uint32_t said = 0;
  if (!segment_->ranks.compare_exchange_strong(said, static_cast<uint32_t>(ranks)) &&
      said != static_cast<uint32_t>(ranks)) {
    munmap(memory, size_);
    throw std::runtime_error(format("rank %d says %d ranks, another rank said %u", rank, ranks, said));
  }
  slot(rank).device = device;
  if (segment_->here.fetch_add(1) + 1 == static_cast<uint32_t>(ranks)) shm_unlink(name.c_str());
}

Clique::~Clique() {
  unlink_unless_complete();
  munmap(segment_, size_);
}

void Clique::unlink_unless_complete() {
  if (segment_->here < static_cast<uint32_t>(ranks)) shm_unlink(name.c_str());
}

template <typename Ready>
bool Clique::wait(const char *what, Ready ready) {
  const auto start = std::chrono::steady_clock::now();
  bool told = false;
  for (int tries = 0; !ready(); ++tries) {
    if (aborted_) return false;
    if (tries < 50) {
      sched_yield();
      continue;
    }
    usleep(50);
    if (!told && std::chrono::steady_clock::now() - start > std::chrono::seconds(kTellAfterSeconds)) {
      told = true;
      report("rank %d of %d has waited %d s for its peers %s", rank, ranks, kTellAfterSeconds, what);
    }
  }
  return !aborted_;
}

bool Clique::wait_for_all() {
  return wait("to be initialized", [&] { return segment_->here >= static_cast<uint32_t>(ranks); });
}

std::vector<int> Clique::devices() const {
  std::vector<int> all;
  for (int r = 0; r < ranks; ++r) all.push_back(slot(r).device);
  return all;
}

void Clique::announce_first_collective() { slot(rank).in_first_collective = 1; }

bool Clique::wait_for_first_collective() {
  return wait("in the first collective, where ranks connect: one thread must drive several ranks in a group", [&] {
    for (int r = 0; r < ranks; ++r) {
      if (!slot(r).in_first_collective) return false;
    }
    return true;
  });
}

template <typename Use>
bool Clique::round(const Collective &collective, const void *bytes, size_t size, Use use) {
  const uint64_t now = ++round_;
  const auto all = [&](std::atomic<uint64_t> Slot::*counter, uint64_t value) {
    for (int r = 0; r < ranks; ++r) {
      if ((slot(r).*counter).load(std::memory_order_acquire) < value) return false;
    }
    return true;
  };
  // Until everybody has read the last round's bytes, this rank's slot is not free.
  if (!wait("in a collective", [&] { return all(&Slot::taken, now - 1); })) return false;
  Slot &own = slot(rank);
  own.collective = collective;
  memcpy(own.bytes, bytes, size);
  own.deposited.store(now, std::memory_order_release);
  if (!wait("in a collective", [&] { return all(&Slot::deposited, now); })) return false;
  bool same = true;
  for (int r = 0; r < ranks; ++r) same = same && slot(r).collective == collective;
  const bool done = use(same);
  own.taken.store(now, std::memory_order_release);
  return done;
}

// Ranks that disagree hang until they are aborted, or go on with garbage: the seed decides, alike for all of them.
bool Clique::mismatch(void *receive, size_t size) {
  const bool hang = mix(seed ^ mix(round_)) & 1;
  if (settings().verbose) {
    report("rank %d: the ranks bring different counts, types or operations: %s", rank, hang ? "hang" : "garbage");
  }
  if (hang) return wait("that have brought something else", [] { return false; });
  uint64_t bits = mix(seed + round_ + static_cast<uint64_t>(rank));
  for (size_t i = 0; i < size; ++i) static_cast<char *>(receive)[i] = static_cast<char>(bits = mix(bits));
  return true;
}

bool Clique::all_reduce(const Collective &collective, const void *send, void *receive) {
  std::lock_guard<std::mutex> lock(one_at_a_time_);
  const auto type = static_cast<ncclDataType_t>(collective.type);
  const size_t width = element_size(type), total = collective.count * width;
  const char *from = static_cast<const char *>(send);
  char *to = static_cast<char *>(receive);
  // Until the result is there, what receives it holds nothing that could be mistaken for it.
  if (from + total <= to || to + total <= from) memset(to, 0xff, total);
  for (size_t start = 0; start < total; start += kSlotBytes) {
    const size_t size = std::min(kSlotBytes, total - start);
    bool same = true;
    const bool done = round(collective, from + start, size, [&](bool agreed) {
      same = agreed;
      if (!agreed) return mismatch(to, total);
      std::vector<const void *> parts;
      for (int r = 0; r < ranks; ++r) parts.push_back(slot(r).bytes);
      reduce(to + start, parts, size / width, type, static_cast<ncclRedOp_t>(collective.operation), seed ^ mix(round_));
      return true;
    });
    if (!done || !same) return done;
  }
  return true;
}

bool Clique::broadcast(const Collective &collective, const void *send, void *receive) {
  std::lock_guard<std::mutex> lock(one_at_a_time_);
  const size_t total = collective.count * element_size(static_cast<ncclDataType_t>(collective.type));
  const bool root = collective.root == rank;
  char *to = static_cast<char *>(receive);
  if (!root) memset(to, 0xff, total);
  for (size_t start = 0; start < total; start += kSlotBytes) {
    const size_t size = std::min(kSlotBytes, total - start);
    bool same = true;
    const char *from = static_cast<const char *>(send) + start;
    const bool done = round(collective, from, root ? size : 0, [&](bool agreed) {
      same = agreed;
      if (!agreed) return mismatch(to, total);
      memcpy(to + start, slot(collective.root).bytes, size);
      return true;
    });
    if (!done || !same) return done;
  }
  return true;
}

void Clique::announce_split(int color, int key) {
  ++splits_;
  slot(rank).color = color;
  slot(rank).key = key;
  slot(rank).choosing.store(splits_, std::memory_order_release);
}

bool Clique::wait_for_split(std::vector<Choice> *choices) {
  const auto all = [&](std::atomic<uint64_t> Slot::*counter) {
    for (int r = 0; r < ranks; ++r) {
      if ((slot(r).*counter).load(std::memory_order_acquire) < splits_) return false;
    }
    return true;
  };
  if (!wait("in a split", [&] { return all(&Slot::choosing); })) return false;
  for (int r = 0; r < ranks; ++r) choices->push_back({slot(r).color, slot(r).key, r});
  slot(rank).chosen.store(splits_, std::memory_order_release);
  // Nobody may choose again before everybody has read.
  return wait("in a split", [&] { return all(&Slot::chosen); });
}

}  // namespace syncbn::sim
