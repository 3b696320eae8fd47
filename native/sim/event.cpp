// Events: records of a stream's progress, which hosts and other streams wait for.
#include <algorithm>

#include "graph.h"

using namespace syncbn::sim;

namespace {

// Fields other than the first two are guarded by the capture lock.
struct Event {
  int device;
  bool timing;
  std::shared_ptr<Marker> marker;  // of the last record; null before the first
  CapturedEvent captured;          // where the last record was in a capturing stream
};

Registry<Event, cudaEvent_t> &events() {
  static auto *all = new Registry<Event, cudaEvent_t>;
  return *all;
}

const bool kCounted = (count_live("events",
                                  [](int device) {
                                    const auto all = events().all();
                                    return static_cast<long>(std::count_if(all.begin(), all.end(), [&](const auto &e) {
                                      return device < 0 || e->device == device;
                                    }));
                                  }),
                       true);

cudaError_t create(cudaEvent_t *handle, unsigned int flags) {
  if (!handle || (flags & ~3u)) return cudaErrorInvalidValue;
  if (const cudaError_t error = device_status()) return error;
  *handle = events().add(
      std::make_shared<Event>(Event{thread_state.device, !(flags & cudaEventDisableTiming), nullptr, CapturedEvent{}}));
  return cudaSuccess;
}

// The marker of the last record, or why the host cannot ask for it.
cudaError_t host_marker(cudaEvent_t handle, std::shared_ptr<Marker> *marker) {
  if (const cudaError_t error = device_status()) return error;
  const std::shared_ptr<Event> event = events().find(handle);
  if (!event) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t error = check_unsafe_call()) return error;
  std::lock_guard<std::mutex> lock(capture_lock());
  if (event->captured.slot >= 0) return cudaErrorCapturedEvent;
  *marker = event->marker;
  return cudaSuccess;
}

cudaError_t event_status(cudaEvent_t handle) {
  const std::shared_ptr<Event> event = events().find(handle);
  return event ? static_cast<cudaError_t>(device(event->device)->error.load()) : device_status();
}

}  // namespace

extern "C" {

cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return api("cudaEventCreate", [&] { return create(event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
  return api("cudaEventCreateWithFlags", [&] { return create(event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return api("cudaEventDestroy",
             [&] { return events().remove(handle) ? device_status() : cudaErrorInvalidResourceHandle; });
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  return api("cudaEventRecord", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Event> event = events().find(handle);
    const std::shared_ptr<Stream> stream = find_stream(stream_handle);
    if (!event || !stream || event->device != stream->device) return cudaErrorInvalidResourceHandle;
    {
      std::lock_guard<std::mutex> lock(capture_lock());
      if (stream->capture) {
        if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
        event->captured = capture_record(*stream);
        return cudaSuccess;
      }
    }
    auto marker = std::make_shared<Marker>();
    const cudaError_t error = submit(*stream, {[marker](Crew &) { marker->reach(); }, "", true});
    if (error) return error;
    std::lock_guard<std::mutex> lock(capture_lock());
    event->marker = marker;
    event->captured = CapturedEvent{};
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t handle, unsigned int flags) {
  return api("cudaStreamWaitEvent", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Event> event = events().find(handle);
    const std::shared_ptr<Stream> stream = find_stream(stream_handle);
    if (!event || !stream) return cudaErrorInvalidResourceHandle;
    if (flags != 0) return cudaErrorInvalidValue;
    std::shared_ptr<Marker> marker;
    {
      std::lock_guard<std::mutex> lock(capture_lock());
      if (event->captured.slot >= 0) return capture_wait(*stream, event->captured);
      if (stream->capture) {
        stream->capture->invalid = true;
        return cudaErrorStreamCaptureIsolation;
      }
      marker = event->marker;
    }
    if (!marker) return cudaSuccess;
    return submit(*stream, {[marker](Crew &) { marker->wait(); }, "", true});
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return api("cudaEventQuery", [&] {
    std::shared_ptr<Marker> marker;
    if (const cudaError_t error = host_marker(handle, &marker)) return error;
    if (marker && !marker->reached()) return cudaErrorNotReady;
    return event_status(handle);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return api("cudaEventSynchronize", [&] {
    std::shared_ptr<Marker> marker;
    if (const cudaError_t error = host_marker(handle, &marker)) return error;
    if (marker) marker->wait();
    return event_status(handle);
  });
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api("cudaEventElapsedTime", [&] {
    if (!milliseconds) return cudaErrorInvalidValue;
    std::shared_ptr<Marker> first, last;
    if (const cudaError_t error = host_marker(start, &first)) return error;
    if (const cudaError_t error = host_marker(end, &last)) return error;
    const std::shared_ptr<Event> a = events().find(start), b = events().find(end);
    if (!a || !b || !a->timing || !b->timing || a->device != b->device || !first || !last) {
      return cudaErrorInvalidResourceHandle;
    }
    if (!first->reached() || !last->reached()) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(last->time() - first->time()).count();
    return cudaSuccess;
  });
}
}
