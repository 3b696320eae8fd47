// How does work get done in order, and without the caller?
//
// A stream is a queue and an OS thread: executing at the call would deadlock as soon as one thread drives two ranks,
// and would make every stream look synchronous.
#ifndef SYNCBN_SIM_STREAM_H
#define SYNCBN_SIM_STREAM_H

#include <chrono>
#include <deque>
#include <thread>

#include "launch.h"

namespace syncbn::sim {

struct Capture;

// A point of a stream's work: an event's record, the end of a copy.
class Marker {
 public:
  void reach();
  void wait() const;
  bool reached() const;
  std::chrono::steady_clock::time_point time() const;  // once reached

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool reached_ = false;
  std::chrono::steady_clock::time_point time_;
};

struct Operation {
  std::function<void(Crew &)> run;
  std::string launch;      // the line of a kernel for launches(); empty for other work
  bool on_failed = false;  // markers are reached even where the device has failed, so that nobody waits for ever
};

// Runs the operation unless its device has failed; waits while the device is stalled.
void perform(const Operation &operation, int device, Crew &crew);

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  // Its OS thread starts with the first operation.
  Stream(int device, bool blocking) : device(device), blocking(blocking) {}

  const int device;
  const bool blocking;  // orders itself with the device's default stream

  // Appends without regard to capture or the default stream.
  void push(Operation operation);
  std::shared_ptr<Marker> push_marker();
  void push_wait(std::shared_ptr<Marker> marker);
  bool idle();
  // A number for what has been pushed so far, and the wait until that much is done.
  uint64_t pushed();
  void wait_until_done(uint64_t pushed);
  // The thread ends when the queue is empty.
  void close();

  // Of the capture that it is part of; guarded by the capture lock of graph.h.
  std::shared_ptr<Capture> capture;
  size_t lane = 0;

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> queue_;
  uint64_t pushed_ = 0, done_ = 0;
  bool started_ = false, closing_ = false;
};

// The stream of a handle: the current device's default stream for 0, null for an unknown one.
std::shared_ptr<Stream> find_stream(cudaStream_t handle);
// The same for work: cudaErrorInvalidResourceHandle where it is another device's than the current one.
cudaError_t find_stream_here(cudaStream_t handle, std::shared_ptr<Stream> *stream);
// Adds work as a caller's: to the capture of a capturing stream, else in order with the default stream.
cudaError_t submit(Stream &stream, Operation operation);
// Waits for what is queued now: on one stream, or on all of a device.
void drain(Stream &stream);
void drain_device(int device);

}  // namespace syncbn::sim

#endif
