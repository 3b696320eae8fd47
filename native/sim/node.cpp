// Which node is simulated: its knobs, its devices and their sticky errors, and what it says on stderr.
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "sim.h"

namespace syncbn::sim {

__attribute__((tls_model("initial-exec"))) __thread ThreadState thread_state;

namespace {

long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtol(text, nullptr, 0) : otherwise;
}

void write_line(const std::string &text) {
  // One write, so that lines of several threads and processes do not mix.
  const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  (void)written;
}

// Once a process, so that whatever is printed can be repeated.
void say_seed(uint64_t seed) {
  static std::atomic<bool> said{false};
  if (!said.exchange(true)) write_line("[syncbn sim] SYNCBN_SIM_SEED=" + std::to_string(seed) + "\n");
}

// A device that computes maps about a thousand stacks and guard pages: sixty devices are more than Linux lets a process
// map (vm.max_map_count is 65,530), and hundreds have threads that leave the machine nothing else.
constexpr long kMostDevices = 32;

// No device for what is no such number, and a line that says so.
int read_devices(int otherwise) {
  const char *text = getenv("SYNCBN_SIM_DEVICES");
  if (!text || !*text) return otherwise;
  char *end;
  const long devices = strtol(text, &end, 10);
  if (!*end && devices >= 0 && devices <= kMostDevices) return static_cast<int>(devices);
  write_line("[syncbn sim] SYNCBN_SIM_DEVICES=" + std::string(text) + ": allowed is 0 to " +
             std::to_string(kMostDevices) + " devices; the node has none\n");
  return 0;
}

Settings *read_settings() {
  Settings *s = new Settings;
  s->devices = read_devices(s->devices);
  s->sms = static_cast<int>(number("SYNCBN_SIM_SMS", s->sms));
  s->memory = static_cast<size_t>(number("SYNCBN_SIM_MEMORY_MB", static_cast<long>(s->memory >> 20))) << 20;
  s->workers = static_cast<int>(number("SYNCBN_SIM_WORKERS", s->workers));
  const char *named = getenv("SYNCBN_SIM_ORDER");
  const std::string order = named ? named : "";
  if (order == "0" || order == "ascending") {
    s->order = Order::kAscending;
  } else if (order == "1" || order == "descending") {
    s->order = Order::kDescending;
  } else if (!order.empty() && order != "2" && order != "random") {
    write_line("[syncbn sim] SYNCBN_SIM_ORDER=" + order + " is unknown: random\n");
  }
  s->poison = static_cast<int>(number("SYNCBN_SIM_POISON", s->poison));
  s->stack = static_cast<size_t>(number("SYNCBN_SIM_STACK", static_cast<long>(s->stack)));
  s->timeout_ms = static_cast<int>(number("SYNCBN_SIM_TIMEOUT_MS", s->timeout_ms));
  s->delay_us = static_cast<int>(number("SYNCBN_SIM_DELAY_US", s->delay_us));
  s->trace = number("SYNCBN_SIM_TRACE", 0) != 0;
  s->verbose = number("SYNCBN_SIM_VERBOSE", 0) != 0;
  s->runtime_version = static_cast<int>(number("SYNCBN_SIM_RUNTIME_VERSION", s->runtime_version));
  s->driver_version = static_cast<int>(number("SYNCBN_SIM_DRIVER_VERSION", s->driver_version));
  s->nccl_version = static_cast<int>(number("SYNCBN_SIM_NCCL_VERSION", s->nccl_version));
  if (s->workers < 1) s->workers = 1;
  if (s->sms < 1) s->sms = 1;
  const char *seed = getenv("SYNCBN_SIM_SEED");
  // 31 bits, so that it is easy to type and positive in every type it passes through.
  s->seed = seed && *seed ? strtoull(seed, nullptr, 0) : std::random_device()() >> 1;
  if (s->verbose) say_seed(s->seed);
  return s;
}

std::string format_list(const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(nullptr, 0, format, again);
  va_end(again);
  std::string text(static_cast<size_t>(length > 0 ? length : 0) + 1, '\0');
  vsnprintf(&text[0], text.size(), format, arguments);
  text.pop_back();
  return text;
}

std::vector<Device> &devices() {
  static auto *list = new std::vector<Device>(static_cast<size_t>(std::max(0, settings().devices)));
  return *list;
}

std::atomic<bool> initialized{false};

struct Live {
  std::mutex mutex;
  std::map<std::string, std::function<long(int)>> counts;
};
Live &live_counts() {
  static Live *live = new Live;
  return *live;
}

}  // namespace

Settings &settings() {
  static Settings *values = read_settings();
  return *values;
}

std::string format(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string text = format_list(format, arguments);
  va_end(arguments);
  return text;
}

void report(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = format_list(format, arguments);
  va_end(arguments);
  say_seed(settings().seed);
  write_line("[syncbn sim] " + text + "\n");
}

uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ull;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

uint64_t draw() {
  static std::atomic<uint64_t> position{0};
  return mix(settings().seed * 0x9e3779b97f4a7c15ull + position.fetch_add(1, std::memory_order_relaxed));
}

Device *device(int index) {
  return index >= 0 && index < static_cast<int>(devices().size()) ? &devices()[static_cast<size_t>(index)] : nullptr;
}

void fail_device(int index, cudaError_t error, const std::string &text) {
  Device *failed = device(index);
  if (!failed) return;
  {
    std::lock_guard<std::mutex> lock(failed->mutex);
    if (failed->error != 0) return;
    failed->error_text = text;
    failed->error = error;
  }
  report("device %d: %s: %s", index, cudaGetErrorName(error), text.c_str());
}

void revive_device(int index) {
  Device *revived = device(index);
  if (!revived) return;
  std::lock_guard<std::mutex> lock(revived->mutex);
  revived->error = 0;
  revived->error_text.clear();
}

cudaError_t device_status() {
  initialize_driver();
  if (const cudaError_t error = node_status()) return error;
  return static_cast<cudaError_t>(device(thread_state.device)->error.load());
}

cudaError_t node_status() {
  if (settings().driver_version / 1000 < settings().runtime_version / 1000) return cudaErrorInsufficientDriver;
  return device(0) ? cudaSuccess : cudaErrorNoDevice;
}

void initialize_driver() { initialized = true; }
bool driver_initialized() { return initialized; }

void wait_while_stalled(int index) {
  while (device(index)->stalled) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

void count_live(const std::string &kind, std::function<long(int)> count) {
  std::lock_guard<std::mutex> lock(live_counts().mutex);
  live_counts().counts[kind] = std::move(count);
}

long live(const std::string &kind, int device) {
  std::function<long(int)> count;
  {
    std::lock_guard<std::mutex> lock(live_counts().mutex);
    const auto it = live_counts().counts.find(kind);
    if (it == live_counts().counts.end()) return -1;
    count = it->second;
  }
  return count(device);
}

void start_thread(std::function<void()> body) {
  sigset_t ours, before;
  sigfillset(&ours);
  for (int synchronous : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&ours, synchronous);
  pthread_sigmask(SIG_SETMASK, &ours, &before);
  try {
    std::thread(std::move(body)).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace syncbn::sim
