// What the parts of the simulated node share: knobs, reports, counted entry points, handles, devices.
//
// Three stand-ins are built from this folder, libcuda.so.1, libcudart.so.13 and libnccl.so.2. The runtime holds all
// state; the other two call it through the functions declared in these headers. State is created on first use and never
// destroyed, since stream threads outlive the exit of main.
#ifndef SYNCBN_SIM_SIM_H
#define SYNCBN_SIM_SIM_H

#include <cuda_runtime.h>
#include <stdint.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace syncbn::sim {

enum class Order { kAscending, kDescending, kRandom };

// Environment variables SYNCBN_SIM_<NAME>, read once; tests may change them while no stream has work.
struct Settings {
  int devices = 8;               // DEVICES: up to 32; none where it is something else
  int sms = 4;                   // SMS: multiprocessors of a device, which bound a cooperative grid
  size_t memory = 256u << 20;    // MEMORY_MB: a device's memory, in bytes here
  int workers = 2;               // WORKERS: OS threads that run the blocks of one grid
  Order order = Order::kRandom;  // ORDER: 0 or ascending, 1 or descending, 2 or random, of threads and blocks
  int poison = 0xff;             // POISON: byte that fills shared memory before each block, 0x00 .. 0xff
  size_t stack = 64u << 10;      // STACK: bytes of a device thread's stack
  int timeout_ms = 20000;        // TIMEOUT_MS: how long a kernel may spin on one flag
  int delay_us = 200;            // DELAY_US: an eighth of a stream's operations wait up to this long first
  uint64_t seed = 0;             // SEED: drawn where not given
  bool trace = false;            // TRACE: every call on stderr
  bool verbose = false;          // VERBOSE: the seed on stderr at the start
  int runtime_version = 13000;   // RUNTIME_VERSION
  int driver_version = 13000;    // DRIVER_VERSION
  int nccl_version = 23007;      // NCCL_VERSION
};
Settings &settings();

// One line on stderr; the first one is preceded by the seed.
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string format(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A 64-bit hash (splitmix64), and the next number of a sequence that the seed starts.
uint64_t mix(uint64_t value);
uint64_t draw();

// An entry point: how often it was called, and which of its calls are to fail.
struct Site;
Site &site(const char *name);
// Counts a call, traces it, and returns the code to fail with or 0.
int enter(Site &site);
// The k-th call of `name` from now (k = 1: the next) returns `code`. k = 0 takes all faults of `name` back.
void fail(const std::string &name, long k, int code);
long calls(const std::string &name);
void reset_calls();
// One line, "name count", for each entry point that was called since reset_calls.
std::string functions();

// What CUDA keeps for each host thread. Trivial, because poisoning shared memory wipes the thread-local storage of a
// program into which the simulator is linked; block.cpp saves and restores it.
class Block;
struct ThreadState {
  int device;
  cudaError_t last_error;
  cudaStreamCaptureMode capture_mode;
  Block *block;  // of a thread that runs device code
};
extern __attribute__((tls_model("initial-exec"))) __thread ThreadState thread_state;

struct Device {
  std::atomic<int> error{0};  // sticky; 0: none
  std::atomic<bool> stalled{false};
  std::mutex mutex;
  std::string error_text;  // guarded by mutex
};
// Null where the node has no such device.
Device *device(int index);
// Poisons the device: every later call on it returns `error`. The first error stays.
void fail_device(int index, cudaError_t error, const std::string &text);
void revive_device(int index);
// The sticky error of the calling thread's device; why there is none, on a node without devices or with a driver of an
// older major version than the runtime's.
cudaError_t device_status();
cudaError_t node_status();
// Marks the driver as initialized, as the runtime's first call does, or asks whether it is.
void initialize_driver();
bool driver_initialized();
// Blocks while the device is stalled.
void wait_while_stalled(int device);

// The frame of every runtime function: counting, injected faults, exceptions, the thread's last error.
template <typename Body>
cudaError_t api(const char *name, Body body) {
  static Site &here = site(name);  // each body is a type of its own, so this is one per function
  cudaError_t error = static_cast<cudaError_t>(enter(here));
  if (error == cudaSuccess) {
    try {
      error = body();
    } catch (const std::bad_alloc &) {
      error = cudaErrorMemoryAllocation;
    } catch (...) {
      error = cudaErrorOperatingSystem;  // a thread or a mapping that the system refused
    }
  }
  if (error != cudaSuccess) thread_state.last_error = error;
  return error;
}

// Live objects by handle. Handles are numbers that are never reused, so that a stale one is always recognized.
template <typename T, typename Handle>
class Registry {
 public:
  Handle add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> lock(mutex_);
    next_ += 64;
    objects_[next_] = std::move(object);
    return reinterpret_cast<Handle>(next_);
  }
  std::shared_ptr<T> find(const void *handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(reinterpret_cast<uintptr_t>(handle));
    return it == objects_.end() ? nullptr : it->second;
  }
  std::shared_ptr<T> remove(const void *handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(reinterpret_cast<uintptr_t>(handle));
    if (it == objects_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(it->second);
    objects_.erase(it);
    return object;
  }
  std::vector<std::shared_ptr<T>> all() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::shared_ptr<T>> list;
    for (auto &entry : objects_) list.push_back(entry.second);
    return list;
  }

 private:
  std::mutex mutex_;
  std::map<uintptr_t, std::shared_ptr<T>> objects_;
  uintptr_t next_ = 0x51b0000;
};

// How many objects of a kind are alive: "memory" and "hostMemory" (bytes), "allocations" and "hostAllocations",
// "streams", "events", "graphs", "communicators". Each part of the node adds its kinds.
void count_live(const std::string &kind, std::function<long(int device)> count);
// device -1: of all devices. -1 for an unknown kind.
long live(const std::string &kind, int device);

// Starts a detached thread that leaves the process's asynchronous signals to the threads of the host program.
void start_thread(std::function<void()> body);

}  // namespace syncbn::sim

#endif
