// Streams: queues, their threads, the default stream's order, and the functions that create and wait for them.
#include "stream.h"

#include <algorithm>

#include "block.h"
#include "graph.h"

namespace syncbn::sim {

void Marker::reach() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (reached_) return;
  reached_ = true;
  time_ = std::chrono::steady_clock::now();
  changed_.notify_all();
}

void Marker::wait() const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return reached_; });
}

bool Marker::reached() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return reached_;
}

std::chrono::steady_clock::time_point Marker::time() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return time_;
}

void perform(const Operation &operation, int device, Crew &crew) {
  wait_while_stalled(device);
  const int longest = settings().delay_us;
  if (longest > 0 && draw() % 8 == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(draw() % static_cast<unsigned>(longest)));
  }
  if (!operation.on_failed && sim::device(device)->error != 0) return;
  try {
    operation.run(crew);
  } catch (const std::exception &problem) {
    fail_device(device, cudaErrorLaunchFailure, format("the simulator could not go on: %s", problem.what()));
  }
}

void Stream::push(Operation operation) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!started_) {
    start_thread([self = shared_from_this()] { self->work(); });
    started_ = true;
  }
  queue_.push_back(std::move(operation));
  ++pushed_;
  changed_.notify_all();
}

std::shared_ptr<Marker> Stream::push_marker() {
  auto marker = std::make_shared<Marker>();
  push({[marker](Crew &) { marker->reach(); }, "", true});
  return marker;
}

void Stream::push_wait(std::shared_ptr<Marker> marker) {
  push({[marker = std::move(marker)](Crew &) { marker->wait(); }, "", true});
}

bool Stream::idle() {
  std::lock_guard<std::mutex> lock(mutex_);
  return done_ == pushed_;
}

uint64_t Stream::pushed() {
  std::lock_guard<std::mutex> lock(mutex_);
  return pushed_;
}

void Stream::wait_until_done(uint64_t pushed) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= pushed; });
}

void Stream::close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closing_ = true;
  changed_.notify_all();
}

void Stream::work() {
  Crew crew;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return !queue_.empty() || closing_; });
    if (queue_.empty()) break;
    {
      const Operation operation = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      perform(operation, device, crew);
    }
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
  lock.unlock();
  Block::release_this_thread();
}

namespace {

Registry<Stream, cudaStream_t> &streams() {
  static auto *all = new Registry<Stream, cudaStream_t>;
  return *all;
}

const bool kCounted = (count_live("streams",
                                  [](int device) {
                                    const auto all = streams().all();
                                    return static_cast<long>(std::count_if(all.begin(), all.end(), [&](const auto &s) {
                                      return device < 0 || s->device == device;
                                    }));
                                  }),
                       true);

std::shared_ptr<Stream> default_stream(int device) {
  static auto *mutex = new std::mutex;
  static auto *all = new std::map<int, std::shared_ptr<Stream>>;
  std::lock_guard<std::mutex> lock(*mutex);
  std::shared_ptr<Stream> &stream = (*all)[device];
  if (!stream) stream = std::make_shared<Stream>(device, true);
  return stream;
}

std::vector<std::shared_ptr<Stream>> blocking_streams(int device) {
  auto all = streams().all();
  all.erase(std::remove_if(all.begin(), all.end(), [&](const auto &s) { return s->device != device || !s->blocking; }),
            all.end());
  return all;
}

// The legacy default stream waits for all blocking streams of its device, and they wait for it.
void push_legacy(Stream &legacy, Operation operation) {
  const auto others = blocking_streams(legacy.device);
  for (const auto &other : others) legacy.push_wait(other->push_marker());
  legacy.push(std::move(operation));
  if (others.empty()) return;
  const std::shared_ptr<Marker> done = legacy.push_marker();
  for (const auto &other : others) other->push_wait(done);
}

cudaError_t create(cudaStream_t *handle, unsigned int flags) {
  if (!handle || (flags & ~1u)) return cudaErrorInvalidValue;
  if (const cudaError_t error = device_status()) return error;
  const int device = thread_state.device;
  const bool blocking = !(flags & cudaStreamNonBlocking);
  auto stream = std::make_shared<Stream>(device, blocking);
  const std::shared_ptr<Stream> legacy = default_stream(device);
  if (blocking && !legacy->idle()) stream->push_wait(legacy->push_marker());
  *handle = streams().add(std::move(stream));
  return cudaSuccess;
}

}  // namespace

std::shared_ptr<Stream> find_stream(cudaStream_t handle) {
  if (!handle || handle == cudaStreamLegacy) return default_stream(thread_state.device);
  return streams().find(handle);
}

cudaError_t find_stream_here(cudaStream_t handle, std::shared_ptr<Stream> *stream) {
  *stream = find_stream(handle);
  return *stream && (*stream)->device == thread_state.device ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t submit(Stream &stream, Operation operation) {
  {
    std::lock_guard<std::mutex> lock(capture_lock());
    if (stream.capture) {
      if (stream.capture->invalid) return cudaErrorStreamCaptureInvalidated;
      capture_operation(stream, std::move(operation));
      return cudaSuccess;
    }
  }
  const bool legacy = default_stream(stream.device).get() == &stream;
  if (legacy && legacy_is_blocked(stream.device, true)) return cudaErrorStreamCaptureImplicit;
  if (!operation.launch.empty()) log_launch(operation.launch);
  if (legacy) {
    push_legacy(stream, std::move(operation));
  } else {
    stream.push(std::move(operation));
  }
  return cudaSuccess;
}

void drain(Stream &stream) { stream.wait_until_done(stream.pushed()); }

void drain_device(int device) {
  auto all = streams().all();
  all.push_back(default_stream(device));
  all.erase(std::remove_if(all.begin(), all.end(), [&](const auto &s) { return s->device != device; }), all.end());
  std::vector<uint64_t> pushed;
  for (const auto &stream : all) pushed.push_back(stream->pushed());
  for (size_t i = 0; i < all.size(); ++i) all[i]->wait_until_done(pushed[i]);
}

}  // namespace syncbn::sim

using namespace syncbn::sim;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return api("cudaStreamCreate", [&] { return create(stream, cudaStreamDefault); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
  return api("cudaStreamCreateWithFlags", [&] { return create(stream, flags); });
}

// Returns at once; the work that is queued is still done.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return api("cudaStreamDestroy", [&] {
    const std::shared_ptr<Stream> stream = streams().find(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = check_not_capturing(*stream)) return error;
    streams().remove(handle);
    stream->close();
    return device_status();
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return api("cudaStreamSynchronize", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = check_not_capturing(*stream)) return error;
    if (const cudaError_t error = check_unsafe_call()) return error;
    drain(*stream);
    return static_cast<cudaError_t>(device(stream->device)->error.load());
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return api("cudaStreamQuery", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = check_not_capturing(*stream)) return error;
    if (const cudaError_t error = check_unsafe_call()) return error;
    if (const int error = device(stream->device)->error) return static_cast<cudaError_t>(error);
    return stream->idle() ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int *index) {
  return api("cudaStreamGetDevice", [&] {
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!index) return cudaErrorInvalidValue;
    *index = stream->device;
    return cudaSuccess;
  });
}
}
