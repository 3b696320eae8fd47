// libnccl.so.2: the functions of NCCL. See comm.h.
#include <nccl.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "reduce.h"

using namespace syncbn::sim;

namespace {

template <typename Value, typename Get>
ncclResult_t query(ncclComm_t handle, Value *value, Get get) {
  const std::shared_ptr<Comm> comm = comms().find(handle);
  const std::shared_ptr<Clique> clique = comm ? comm->clique() : nullptr;
  if (!clique || !value) return refuse(ncclInvalidArgument, "no such communicator");
  *value = get(*comm, *clique);
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
  return nccl_api("ncclGetVersion", [&] {
    if (!version) return ncclInvalidArgument;
    *version = settings().nccl_version;
    return ncclSuccess;
  });
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  return nccl_api("ncclGetUniqueId", [&] {
    if (!id) return ncclInvalidArgument;
    static std::atomic<int> made{0};
    memset(id, 0, sizeof *id);
    Identity identity = {};
    const std::string name = format("/syncbn-sim-%d-%d", static_cast<int>(getpid()), ++made);
    memcpy(identity.name, name.c_str(), name.size() + 1);
    identity.seed = settings().seed;
    memcpy(id->internal, &identity, sizeof identity);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
  return nccl_api("ncclCommInitRank", [&] { return init_rank(comm, ranks, id, rank, nullptr, thread_state.device); });
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
  return nccl_api("ncclCommInitRankConfig",
                  [&] { return init_rank(comm, ranks, id, rank, config, thread_state.device); });
}

ncclResult_t ncclCommInitAll(ncclComm_t *all, int devices, const int *list) {
  return nccl_api("ncclCommInitAll", [&]() -> ncclResult_t {
    if (!all || devices < 1) return refuse(ncclInvalidArgument, format("%d devices", devices));
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    ncclGroupStart();
    for (int rank = 0; rank < devices; ++rank) {
      const ncclResult_t result = init_rank(&all[rank], devices, id, rank, nullptr, list ? list[rank] : rank);
      if (result != ncclSuccess) group().error = result;
    }
    return ncclGroupEnd();
  });
}

ncclResult_t ncclCommSplit(ncclComm_t handle, int color, int key, ncclComm_t *made, ncclConfig_t *config) {
  return nccl_api("ncclCommSplit", [&]() -> ncclResult_t {
    const std::shared_ptr<Comm> comm = comms().find(handle);
    const std::shared_ptr<Clique> clique = comm ? comm->clique() : nullptr;
    if (!clique || !made) return refuse(ncclInvalidArgument, "no such communicator");
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR) return refuse(ncclInvalidArgument, format("color %d", color));
    if (const ncclResult_t result = check_config(config)) return result;
    return split(comm->device, clique, color, key, made);
  });
}

ncclResult_t ncclCommFinalize(ncclComm_t handle) {
  return nccl_api("ncclCommFinalize", [&] {
    const std::shared_ptr<Comm> comm = comms().find(handle);
    if (!comm) return refuse(ncclInvalidArgument, "no such communicator");
    if (comm->finalized) return refuse(ncclInvalidArgument, "the communicator is finalized already");
    comm->finalized = true;
    comm->wait_for_queued();
    return ncclSuccess;
  });
}

// Waits for the communicator's collectives, so it hangs where a peer is lost, and for the graphs that name it to be
// destroyed.
ncclResult_t ncclCommDestroy(ncclComm_t handle) {
  return nccl_api("ncclCommDestroy", [&] {
    if (!handle) return ncclSuccess;
    const std::shared_ptr<Comm> comm = comms().find(handle);
    if (!comm) return refuse(ncclInvalidArgument, "no such communicator");
    comm->wait_for_queued();
    comm->wait_for_graphs();
    comms().remove(handle);
    return ncclSuccess;
  });
}

// Frees this rank only: its peers wait on until they are aborted too. Waits for graphs as ncclCommDestroy does.
ncclResult_t ncclCommAbort(ncclComm_t handle) {
  return nccl_api("ncclCommAbort", [&] {
    if (!handle) return ncclSuccess;
    const std::shared_ptr<Comm> comm = comms().remove(handle);
    if (!comm) return refuse(ncclInvalidArgument, "no such communicator");
    comm->abort();
    comm->wait_for_graphs();
    return ncclSuccess;
  });
}

// A fault injected into "asyncError" is what the call reports, where one injected into its own name makes it fail.
ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *error) {
  return nccl_api("ncclCommGetAsyncError", [&] {
    return query(handle, error, [](const Comm &, const Clique &) {
      static Site &reported = site("asyncError");
      return static_cast<ncclResult_t>(enter(reported));
    });
  });
}

ncclResult_t ncclCommCount(const ncclComm_t handle, int *count) {
  return nccl_api("ncclCommCount", [&] {
    return query(handle, count, [](const Comm &, const Clique &clique) { return clique.ranks; });
  });
}

ncclResult_t ncclCommUserRank(const ncclComm_t handle, int *rank) {
  return nccl_api("ncclCommUserRank",
                  [&] { return query(handle, rank, [](const Comm &, const Clique &clique) { return clique.rank; }); });
}

ncclResult_t ncclCommCuDevice(const ncclComm_t handle, int *index) {
  return nccl_api("ncclCommCuDevice",
                  [&] { return query(handle, index, [](const Comm &comm, const Clique &) { return comm.device; }); });
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
  return nccl_api("ncclAllReduce", [&] {
    if (!can_reduce(operation)) return refuse(ncclInvalidArgument, format("operation %d is not simulated", operation));
    return collective(comm, {count, type, operation, 0}, send, receive, stream);
  });
}

ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return nccl_api("ncclBroadcast", [&] {
    if (root < 0) return refuse(ncclInvalidArgument, format("root %d", root));
    return collective(comm, {count, type, -1, root}, send, receive, stream);
  });
}

ncclResult_t ncclGroupStart() {
  return nccl_api("ncclGroupStart", [&] {
    ++group().depth;
    return ncclSuccess;
  });
}

ncclResult_t ncclGroupEnd() {
  bool entered = false;
  const ncclResult_t result = nccl_api("ncclGroupEnd", [&] {
    entered = true;
    if (group().depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd: not in a group call");
    if (--group().depth > 0) return ncclSuccess;
    const Group ended = std::move(group());
    group() = Group{};
    if (ended.error == ncclSuccess) return run_group(ended.calls);
    for (const Pending &call : ended.calls) {
      if (call.attach && call.wait) call.wait();  // takes back the handle of a communicator
    }
    return ended.error;
  });
  if (!entered) group() = Group{};  // a group call that is made to fail is over all the same
  return result;
}

// Texts cannot fail: a fault that is injected into them changes nothing.

const char *ncclGetErrorString(ncclResult_t result) {
  static Site &here = site("ncclGetErrorString");
  enter(here);
  static const char *const kTexts[] = {"no error",
                                       "unhandled cuda error",
                                       "unhandled system error",
                                       "internal error",
                                       "invalid argument",
                                       "invalid usage",
                                       "remote process exited or there was a network error",
                                       "NCCL operation in progress",
                                       "timeout"};
  return result >= 0 && result <= ncclTimeout ? kTexts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t) {
  static Site &here = site("ncclGetLastError");
  enter(here);
  return last_error_text();
}
}
