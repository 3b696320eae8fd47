// What is a communicator, and what waits for the end of a group?
//
// Communicators are blocking. As with the real library, the first collective of a communicator connects the ranks and
// returns only when all are in it: one thread that drives several ranks without a group waits for itself.
#ifndef SYNCBN_SIM_COMM_H
#define SYNCBN_SIM_COMM_H

#include <nccl.h>

#include <condition_variable>

#include "clique.h"
#include "sim.h"

namespace syncbn::sim {

class Comm {
 public:
  explicit Comm(int device) : device(device) {}

  const int device;
  std::atomic<bool> connected{false}, finalized{false};

  // Null until this rank has attached.
  std::shared_ptr<Clique> clique() {
    std::lock_guard<std::mutex> lock(mutex_);
    return clique_;
  }
  void attach(const std::string &name, uint64_t seed, int ranks, int rank) {
    auto made = std::make_shared<Clique>(name, seed, ranks, rank, device);
    std::lock_guard<std::mutex> lock(mutex_);
    if (aborted_) made->abort();
    clique_ = std::move(made);
  }
  void abort() {
    std::lock_guard<std::mutex> lock(mutex_);
    aborted_ = true;
    if (clique_) clique_->abort();
    changed_.notify_all();
  }
  // Collectives that have not ended.
  void queue(int more) {
    std::lock_guard<std::mutex> lock(mutex_);
    queued_ += more;
    changed_.notify_all();
  }
  void wait_for_queued() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return queued_ == 0 || aborted_; });
  }
  // Captured collectives of graphs that are not destroyed.
  void capture(int more) {
    std::lock_guard<std::mutex> lock(mutex_);
    captured_ += more;
    changed_.notify_all();
  }
  // Also once it is aborted.
  void wait_for_graphs() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return captured_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Clique> clique_;
  bool aborted_ = false;
  int queued_ = 0;
  int captured_ = 0;
};

Registry<Comm, ncclComm_t> &comms();

// What ncclUniqueId holds.
struct Identity {
  char name[64];
  uint64_t seed;
};
static_assert(sizeof(Identity) <= NCCL_UNIQUE_ID_BYTES, "fits into an id");

// A call that waits for the end of the group: communicators to be made, or a collective.
struct Pending {
  std::shared_ptr<Comm> comm;
  // The phases in which all of a group's calls go forward together.
  std::function<ncclResult_t()> announce, attach, wait, enqueue;
};

struct Group {
  int depth = 0;
  ncclResult_t error = ncclSuccess;
  std::vector<Pending> calls;
};

Group &group();

// Keeps the text for ncclGetLastError and returns the result.
ncclResult_t refuse(ncclResult_t result, const std::string &text);
const char *last_error_text();

// Adds the call to the thread's open group, or does it.
ncclResult_t add(Pending call);
// Takes the group's calls through the phases, each of them before the next phase of any.
ncclResult_t run_group(std::vector<Pending> calls);

ncclResult_t check_config(const ncclConfig_t *config);
ncclResult_t init_rank(ncclComm_t *handle, int ranks, const ncclUniqueId &id, int rank, const ncclConfig_t *config,
                       int on_device);
ncclResult_t split(int device, const std::shared_ptr<Clique> &parent, int color, int key, ncclComm_t *handle);
ncclResult_t collective(ncclComm_t handle, const Collective &what, const void *send, void *receive,
                        cudaStream_t stream);

// The frame of every function of the library: counting, injected faults, exceptions, the group's error.
template <typename Body>
ncclResult_t nccl_api(const char *name, Body body) {
  static Site &here = site(name);
  ncclResult_t result = static_cast<ncclResult_t>(enter(here));
  if (result != ncclSuccess) {
    refuse(result, format("injected into %s", name));
  } else {
    try {
      result = body();
    } catch (const std::exception &problem) {
      result = refuse(ncclSystemError, problem.what());
    }
  }
  // A failed call spoils its group.
  if (result != ncclSuccess && group().depth > 0 && group().error == ncclSuccess) group().error = result;
  return result;
}

}  // namespace syncbn::sim

#endif
