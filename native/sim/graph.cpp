// Capture of streams into graphs, and their replay.
#include "graph.h"

#include <algorithm>

namespace syncbn::sim {

std::mutex &capture_lock() {
  static auto *mutex = new std::mutex;
  return *mutex;
}

namespace {

// Captures in progress; guarded by capture_lock.
std::vector<std::shared_ptr<Capture>> &captures() {
  static auto *all = new std::vector<std::shared_ptr<Capture>>;
  return *all;
}

// A graph that can be launched: its lanes but the first, which runs on the launching stream, have streams of their own.
struct Executable {
  Graph graph;
  std::vector<std::shared_ptr<Stream>> helpers;
  std::mutex running;  // launches of one executable do not overlap

  ~Executable() {
    for (const auto &helper : helpers) helper->close();
  }
};

Registry<Graph, cudaGraph_t> &graphs() {
  static auto *all = new Registry<Graph, cudaGraph_t>;
  return *all;
}
Registry<Executable, cudaGraphExec_t> &executables() {
  static auto *all = new Registry<Executable, cudaGraphExec_t>;
  return *all;
}

const bool kCounted =
    (count_live("graphs", [](int) { return static_cast<long>(graphs().all().size() + executables().all().size()); }),
     true);

void run_lane(const GraphLane &lane, const std::vector<std::shared_ptr<Marker>> &slots, Crew &crew) {
  for (const Step &step : lane.steps) {
    if (step.signal >= 0) {
      slots[static_cast<size_t>(step.signal)]->reach();
    } else if (step.wait >= 0) {
      slots[static_cast<size_t>(step.wait)]->wait();
    } else {
      perform(step.operation, lane.device, crew);
    }
  }
}

void replay(Executable &executable, Crew &crew) {
  std::lock_guard<std::mutex> lock(executable.running);
  auto slots = std::make_shared<std::vector<std::shared_ptr<Marker>>>();
  for (int i = 0; i < executable.graph.slots; ++i) slots->push_back(std::make_shared<Marker>());
  std::vector<std::shared_ptr<Marker>> ends;
  for (size_t i = 1; i < executable.graph.lanes.size(); ++i) {
    const GraphLane &lane = executable.graph.lanes[i];
    Stream &helper = *executable.helpers[i - 1];
    helper.push({[&lane, slots](Crew &own) { run_lane(lane, *slots, own); }, "", true});
    ends.push_back(helper.push_marker());
  }
  run_lane(executable.graph.lanes[0], *slots, crew);
  for (const auto &end : ends) end->wait();
}

// A lane other than the first must end with a record that some lane has waited for.
bool joined(const Graph &graph) {
  for (size_t i = 1; i < graph.lanes.size(); ++i) {
    const std::vector<Step> &steps = graph.lanes[i].steps;
    const int last = steps.back().signal;
    const bool waited =
        last >= 0 && std::any_of(graph.lanes.begin(), graph.lanes.end(), [&](const GraphLane &lane) {
          return std::any_of(lane.steps.begin(), lane.steps.end(), [&](const Step &step) { return step.wait == last; });
        });
    if (!waited) return false;
  }
  return true;
}

size_t join(const std::shared_ptr<Capture> &capture, Stream &stream) {
  capture->graph.lanes.push_back({stream.device, {}});
  capture->streams.push_back(stream.shared_from_this());
  stream.capture = capture;
  stream.lane = capture->streams.size() - 1;
  return stream.lane;
}

std::vector<Step> &steps_of(Stream &stream) { return stream.capture->graph.lanes[stream.lane].steps; }

// Whether `capture` forbids unsafe calls to the calling thread.
bool forbids(const Capture &capture) {
  if (thread_state.capture_mode == cudaStreamCaptureModeRelaxed || capture.mode == cudaStreamCaptureModeRelaxed) {
    return false;
  }
  if (capture.owner == std::this_thread::get_id()) return true;
  return capture.mode == cudaStreamCaptureModeGlobal && thread_state.capture_mode == cudaStreamCaptureModeGlobal;
}

}  // namespace

bool capturing(Stream &stream) {
  std::lock_guard<std::mutex> lock(capture_lock());
  return stream.capture != nullptr;
}

cudaError_t check_unsafe_call() {
  std::lock_guard<std::mutex> lock(capture_lock());
  cudaError_t result = cudaSuccess;
  for (const auto &capture : captures()) {
    if (!forbids(*capture)) continue;
    capture->invalid = true;
    result = cudaErrorStreamCaptureUnsupported;
  }
  return result;
}

cudaError_t check_not_capturing(Stream &stream) {
  std::lock_guard<std::mutex> lock(capture_lock());
  if (!stream.capture) return cudaSuccess;
  stream.capture->invalid = true;
  return cudaErrorStreamCaptureUnsupported;
}

bool legacy_is_blocked(int device, bool by_work) {
  std::lock_guard<std::mutex> lock(capture_lock());
  bool blocked = false;
  for (const auto &capture : captures()) {
    for (const auto &stream : capture->streams) {
      if (stream->device != device || !stream->blocking) continue;
      if (by_work) capture->invalid = true;
      blocked = true;
    }
  }
  return blocked;
}

void capture_operation(Stream &stream, Operation operation) { steps_of(stream).push_back({std::move(operation)}); }

CapturedEvent capture_record(Stream &stream) {
  Step step;
  step.signal = stream.capture->graph.slots++;
  steps_of(stream).push_back(step);
  return {stream.capture, step.signal};
}

cudaError_t capture_wait(Stream &stream, const CapturedEvent &event) {
  const std::shared_ptr<Capture> capture = event.capture.lock();
  if (!capture || std::find(captures().begin(), captures().end(), capture) == captures().end()) {
    return cudaErrorCapturedEvent;  // its capture has ended
  }
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream.capture && stream.capture != capture) {
    stream.capture->invalid = capture->invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  if (!stream.capture) join(capture, stream);
  Step step;
  step.wait = event.slot;
  steps_of(stream).push_back(step);
  return cudaSuccess;
}

}  // namespace syncbn::sim

using namespace syncbn::sim;

extern "C" {

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status) {
  return api("cudaStreamIsCapturing", [&] {
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!status) return cudaErrorInvalidValue;
    const bool legacy = !handle || handle == cudaStreamLegacy;
    if (legacy && legacy_is_blocked(stream->device, false)) return cudaErrorStreamCaptureImplicit;
    std::lock_guard<std::mutex> lock(capture_lock());
    *status = !stream->capture           ? cudaStreamCaptureStatusNone
              : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return device_status();
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return api("cudaStreamBeginCapture", [&] {
    if (const cudaError_t error = device_status()) return error;
    if (!handle || handle == cudaStreamLegacy) return cudaErrorStreamCaptureUnsupported;
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (mode < cudaStreamCaptureModeGlobal || mode > cudaStreamCaptureModeRelaxed) return cudaErrorInvalidValue;
    std::lock_guard<std::mutex> lock(capture_lock());
    if (stream->capture) return cudaErrorIllegalState;
    auto capture = std::make_shared<Capture>();
    capture->mode = mode;
    capture->owner = std::this_thread::get_id();
    join(capture, *stream);
    captures().push_back(std::move(capture));
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
  return api("cudaStreamEndCapture", [&] {
    if (!graph) return cudaErrorInvalidValue;
    *graph = nullptr;
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    std::lock_guard<std::mutex> lock(capture_lock());
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return cudaErrorIllegalState;
    if (stream->lane != 0) return cudaErrorStreamCaptureUnmatched;
    if (capture->mode != cudaStreamCaptureModeRelaxed && capture->owner != std::this_thread::get_id()) {
      return cudaErrorStreamCaptureWrongThread;
    }
    for (const auto &member : capture->streams) member->capture = nullptr;
    captures().erase(std::find(captures().begin(), captures().end(), capture));
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (!joined(capture->graph)) return cudaErrorStreamCaptureUnjoined;
    *graph = graphs().add(std::make_shared<Graph>(std::move(capture->graph)));
    return device_status();
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  return api("cudaThreadExchangeStreamCaptureMode", [&] {
    if (!mode || *mode < cudaStreamCaptureModeGlobal || *mode > cudaStreamCaptureModeRelaxed) {
      return cudaErrorInvalidValue;
    }
    std::swap(thread_state.capture_mode, *mode);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *handle, cudaGraph_t graph_handle, unsigned long long flags) {
  return api("cudaGraphInstantiate", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Graph> graph = graphs().find(graph_handle);
    if (!handle || !graph || flags != 0) return cudaErrorInvalidValue;
    auto executable = std::make_shared<Executable>();
    executable->graph = *graph;
    for (size_t i = 1; i < graph->lanes.size(); ++i) {
      executable->helpers.push_back(std::make_shared<Stream>(graph->lanes[i].device, false));
    }
    *handle = executables().add(std::move(executable));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  return api("cudaGraphLaunch", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Executable> executable = executables().find(handle);
    const std::shared_ptr<Stream> stream = find_stream(stream_handle);
    if (!executable) return cudaErrorInvalidValue;
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = check_not_capturing(*stream)) return error;  // graphs within graphs are not simulated
    for (const GraphLane &lane : executable->graph.lanes) {
      for (const Step &step : lane.steps) {
        if (!step.operation.launch.empty()) log_launch(step.operation.launch);
      }
    }
    return submit(*stream, {[executable](Crew &crew) { replay(*executable, crew); }, "", true});
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return api("cudaGraphExecDestroy",
             [&] { return executables().remove(handle) ? device_status() : cudaErrorInvalidValue; });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return api("cudaGraphDestroy", [&] { return graphs().remove(handle) ? device_status() : cudaErrorInvalidValue; });
}
}
