// How does a collective get from the call into a stream?
#include "comm.h"
#include "graph.h"
#include "memory.h"
#include "reduce.h"

namespace syncbn::sim {

namespace {

// Runs in the stream. A pointer outside the device's memory is what it is on hardware: a fault that poisons the device.
void run_collective(const Comm &comm, Clique &clique, const Collective &collective, const void *send, void *receive) {
  const size_t size = collective.count * element_size(static_cast<ncclDataType_t>(collective.type));
  const bool sends = collective.operation >= 0 || collective.root == clique.rank;
  Allocation found;
  for (const void *pointer : {sends ? send : receive, static_cast<const void *>(receive)}) {
    if (find_allocation(pointer, size, &found) && (found.kind == MemoryKind::kHost || found.device == comm.device)) {
      continue;
    }
    fail_device(comm.device, cudaErrorIllegalAddress,
                format("a collective of %zu bytes: %p does not hold them on this device", size, pointer));
    return;
  }
  if (collective.operation < 0) {
    clique.broadcast(collective, send, receive);
  } else {
    clique.all_reduce(collective, send, receive);
  }
}

// Ends a queued collective however the operation that holds it ends: run, skipped on a failed device, or dropped.
struct Ticket {
  std::shared_ptr<Comm> comm;
  explicit Ticket(std::shared_ptr<Comm> of) : comm(std::move(of)) { comm->queue(1); }
  ~Ticket() { comm->queue(-1); }
};

// A captured collective is replayed many times: it holds the communicator until its graph is gone.
struct GraphTicket {
  std::shared_ptr<Comm> comm;
  explicit GraphTicket(std::shared_ptr<Comm> of) : comm(std::move(of)) { comm->capture(1); }
  ~GraphTicket() { comm->capture(-1); }
};

ncclResult_t enqueue(const std::shared_ptr<Comm> &comm, const Collective &collective, const void *send, void *receive,
                     cudaStream_t handle) {
  // The default stream is that of the communicator's device, whichever is current.
  const int current = thread_state.device;
  thread_state.device = comm->device;
  const std::shared_ptr<Stream> stream = find_stream(handle);
  thread_state.device = current;
  if (!stream) return refuse(ncclUnhandledCudaError, "no such stream");
  if (stream->device != comm->device) {
    return refuse(ncclInvalidUsage,
                  format("a stream of device %d for a communicator on device %d", stream->device, comm->device));
  }
  if (device(comm->device)->error) return refuse(ncclUnhandledCudaError, "the device has failed");
  const bool in_graph = capturing(*stream);
  const auto run = [=, clique = comm->clique(), ticket = in_graph ? nullptr : std::make_shared<Ticket>(comm),
                    captured = in_graph ? std::make_shared<GraphTicket>(comm) : nullptr](Crew &) mutable {
    run_collective(*comm, *clique, collective, send, receive);
    ticket.reset();
  };
  const cudaError_t error = submit(*stream, {run, "", false});
  return error ? refuse(ncclUnhandledCudaError, cudaGetErrorString(error)) : ncclSuccess;
}

}  // namespace

ncclResult_t collective(ncclComm_t handle, const Collective &what, const void *send, void *receive,
                        cudaStream_t stream) {
  const std::shared_ptr<Comm> comm = comms().find(handle);
  const std::shared_ptr<Clique> clique = comm ? comm->clique() : nullptr;
  if (!clique) return refuse(ncclInvalidArgument, "no such communicator");
  if (comm->finalized) return refuse(ncclInvalidUsage, "the communicator is finalized");
  if (element_size(static_cast<ncclDataType_t>(what.type)) == 0) {
    return refuse(ncclInvalidArgument, format("type %d is not simulated", what.type));
  }
  if (what.root >= clique->ranks) return refuse(ncclInvalidArgument, format("root %d", what.root));
  if (what.count == 0) return ncclSuccess;
  Pending call;
  call.comm = comm;
  if (!comm->connected) {
    call.announce = [=] {
      clique->announce_first_collective();
      return ncclSuccess;
    };
    call.wait = [=] {
      if (!clique->wait_for_first_collective()) {
        return refuse(ncclInternalError, "aborted while it connected to the other ranks");
      }
      comm->connected = true;
      return ncclSuccess;
    };
  }
  call.enqueue = [=] { return enqueue(comm, what, send, receive, stream); };
  return add(std::move(call));
}

}  // namespace syncbn::sim
