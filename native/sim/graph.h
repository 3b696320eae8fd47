// What does a stream do while it is captured, and how is that replayed?
#ifndef SYNCBN_SIM_GRAPH_H
#define SYNCBN_SIM_GRAPH_H

#include "stream.h"

namespace syncbn::sim {

// A step of a lane: work, or the signalling of a slot, or the wait for one.
struct Step {
  Operation operation;
  int signal = -1, wait = -1;
};

// What one stream did during the capture. Lanes are kept apart in the replay: one flat list would deadlock where two
// streams of a capture take part in collectives of different communicators.
struct GraphLane {
  int device;
  std::vector<Step> steps;
};

struct Graph {
  std::vector<GraphLane> lanes;  // 0: of the stream that the capture began on
  int slots = 0;
};

struct Capture {
  cudaStreamCaptureMode mode;
  std::thread::id owner;
  bool invalid = false;
  Graph graph;
  std::vector<std::shared_ptr<Stream>> streams;  // by lane
};

// Guards all captures, and the capture fields of streams and events.
std::mutex &capture_lock();

bool capturing(Stream &stream);
// Whether the calling thread may make a call that no capture can tolerate (allocation, synchronization, queries). If
// not, the captures that forbid it become invalid.
cudaError_t check_unsafe_call();
// Fails where the stream is capturing: what the caller is about to do would wait for work that is not running.
cudaError_t check_not_capturing(Stream &stream);
// Whether a blocking stream of the device is capturing, which bars its legacy stream (cudaErrorStreamCaptureImplicit).
// Work on the legacy stream makes such captures invalid; a question about it does not.
bool legacy_is_blocked(int device, bool by_work);

// An event's record in a captured stream, and a wait for it, which pulls the waiting stream into the capture.
struct CapturedEvent {
  std::weak_ptr<Capture> capture;
  int slot = -1;
};
// The three below are called under capture_lock.
void capture_operation(Stream &stream, Operation operation);
CapturedEvent capture_record(Stream &stream);
cudaError_t capture_wait(Stream &stream, const CapturedEvent &event);

}  // namespace syncbn::sim

#endif
