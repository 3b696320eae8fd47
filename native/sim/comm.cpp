// How is a communicator made, and what does a group do at its end?
#include "comm.h"

#include <string.h>

#include <algorithm>

namespace syncbn::sim {

namespace {

const bool kCounted = (count_live("communicators",
                                  [](int device) {
                                    const auto all = comms().all();
                                    return static_cast<long>(std::count_if(all.begin(), all.end(), [&](const auto &c) {
                                      return device < 0 || c->device == device;
                                    }));
                                  }),
                       true);

// A rank whose peers never came leaves its segment behind.
struct AtExit {
  ~AtExit() {
    for (const auto &comm : comms().all()) {
      if (const auto clique = comm->clique()) clique->unlink_unless_complete();
    }
  }
} at_exit;

std::string &last_error() {
  static thread_local std::string text;
  return text;
}

ncclResult_t run_phase(const std::function<ncclResult_t()> &phase) {
  try {
    return phase();
  } catch (const std::exception &problem) {
    return refuse(ncclSystemError, problem.what());
  }
}

}  // namespace

Registry<Comm, ncclComm_t> &comms() {
  static auto *all = new Registry<Comm, ncclComm_t>;
  return *all;
}

Group &group() {
  static thread_local Group current;
  return current;
}

ncclResult_t refuse(ncclResult_t result, const std::string &text) {
  last_error() = text;
  if (settings().verbose) report("NCCL: %s", text.c_str());
  return result;
}

const char *last_error_text() { return last_error().c_str(); }

ncclResult_t run_group(std::vector<Pending> calls) {
  ncclResult_t result = ncclSuccess;
  for (auto phase : {&Pending::announce, &Pending::attach, &Pending::wait, &Pending::enqueue}) {
    for (Pending &call : calls) {
      if (result != ncclSuccess) {
        // Whoever was to be made is not: its wait ends at once and takes the handle back.
        if (!call.attach || phase != &Pending::wait) continue;
        call.comm->abort();
      }
      if (!(call.*phase)) continue;
      const ncclResult_t own = run_phase(call.*phase);
      if (result == ncclSuccess) result = own;
    }
  }
  return result;
}

ncclResult_t add(Pending call) {
  if (group().depth > 0) {
    group().calls.push_back(std::move(call));
    return ncclSuccess;
  }
  return run_group({std::move(call)});
}

ncclResult_t check_config(const ncclConfig_t *config) {
  if (!config) return ncclSuccess;
  if (config->magic != NCCL_API_MAGIC || config->size < offsetof(ncclConfig_t, cgaClusterSize) || config->size > 4096 ||
      config->version < 21400) {
    return refuse(ncclInvalidArgument, "ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER");
  }
  ncclConfig_t known;
  const auto undefined = [](int value) { return value == NCCL_CONFIG_UNDEF_INT; };
  known.blocking = known.minCTAs = known.maxCTAs = NCCL_CONFIG_UNDEF_INT;
  memcpy(&known, config, std::min(config->size, sizeof known));
  if (!undefined(known.blocking) && known.blocking != 1) {
    return refuse(ncclInvalidUsage,
                  format("blocking is %d: only blocking communicators are simulated", known.blocking));
  }
  if ((!undefined(known.minCTAs) && known.minCTAs <= 0) || (!undefined(known.maxCTAs) && known.maxCTAs <= 0)) {
    return refuse(ncclInvalidArgument, "minCTAs and maxCTAs must be positive");
  }
  return ncclSuccess;
}

// The last step of making a communicator: all ranks are there, each on a device of its own.
static ncclResult_t finish_init(const std::shared_ptr<Comm> &comm, ncclComm_t *handle) {
  ncclResult_t result = ncclSuccess;
  const std::shared_ptr<Clique> clique = comm->clique();
  if (!clique) {
    result = ncclSystemError;  // attaching failed
  } else if (!clique->wait_for_all()) {
    result = refuse(ncclInternalError, "aborted while it waited for the other ranks");
  } else {
    std::vector<int> devices = clique->devices();
    std::sort(devices.begin(), devices.end());
    if (std::adjacent_find(devices.begin(), devices.end()) != devices.end()) {
      result = refuse(ncclInvalidUsage, "Duplicate GPU detected: two ranks are on one device");
    }
  }
  if (result != ncclSuccess) {
    comms().remove(*handle);
    *handle = nullptr;
  }
  return result;
}

ncclResult_t init_rank(ncclComm_t *handle, int ranks, const ncclUniqueId &id, int rank, const ncclConfig_t *config,
                       int on_device) {
  if (!handle) return refuse(ncclInvalidArgument, "no place for the communicator");
  *handle = nullptr;
  if (ranks < 1 || rank < 0 || rank >= ranks) {
    return refuse(ncclInvalidArgument, format("rank %d of %d", rank, ranks));
  }
  if (const ncclResult_t result = check_config(config)) return result;
  const Device *current = device(on_device);
  if (!current || current->error) return refuse(ncclUnhandledCudaError, "the device is not usable");
  initialize_driver();
  Identity identity;
  memcpy(&identity, id.internal, sizeof identity);
  identity.name[sizeof identity.name - 1] = '\0';
  if (strncmp(identity.name, "/syncbn-sim-", 12)) return refuse(ncclInvalidArgument, "no id of ncclGetUniqueId");
  auto comm = std::make_shared<Comm>(on_device);
  // Known at once, so that another thread can abort it while this one waits.
  *handle = comms().add(comm);
  Pending call;
  call.comm = comm;
  call.attach = [=] {
    comm->attach(identity.name, identity.seed, ranks, rank);
    return ncclSuccess;
  };
  call.wait = [=] { return finish_init(comm, handle); };
  return add(std::move(call));
}

ncclResult_t split(int device, const std::shared_ptr<Clique> &parent, int color, int key, ncclComm_t *handle) {
  auto comm = std::make_shared<Comm>(device);
  *handle = nullptr;
  Pending call;
  call.comm = comm;
  call.announce = [=] {
    parent->announce_split(color, key);
    return ncclSuccess;
  };
  call.attach = [=]() -> ncclResult_t {
    std::vector<Clique::Choice> choices;
    if (!parent->wait_for_split(&choices)) return refuse(ncclInternalError, "aborted while it split");
    if (color == NCCL_SPLIT_NOCOLOR) return ncclSuccess;
    choices.erase(std::remove_if(choices.begin(), choices.end(), [&](const auto &c) { return c.color != color; }),
                  choices.end());
    std::stable_sort(choices.begin(), choices.end(), [](const auto &a, const auto &b) { return a.key < b.key; });
    int rank = 0;
    while (choices[static_cast<size_t>(rank)].rank != parent->rank) ++rank;
    *handle = comms().add(comm);
    comm->attach(format("%s.%d.%d", parent->name.c_str(), parent->splits(), color),
                 mix(parent->seed + static_cast<uint64_t>(color)), static_cast<int>(choices.size()), rank);
    return ncclSuccess;
  };
  call.wait = [=]() -> ncclResult_t { return *handle ? finish_init(comm, handle) : ncclSuccess; };
  return add(std::move(call));
}

}  // namespace syncbn::sim
