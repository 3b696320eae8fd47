// How does a test steer the node? C functions for C++ tests and for the Java class io.github.syncbn4j.sim.SimNode.
//
// The Java natives take and return plain numbers only: a text is the address of its bytes. So no JNI function is called
// and no JDK header needed.
#include <dlfcn.h>
#include <string.h>

#include <algorithm>

#include "graph.h"
#include "memory.h"

using namespace syncbn::sim;

namespace {

// Copies as much of the text as fits, always terminated, and returns the bytes that all of it needs.
long copy_text(const std::string &text, char *to, long capacity) {
  if (to && capacity > 0) {
    const size_t length = std::min(text.size(), static_cast<size_t>(capacity) - 1);
    memcpy(to, text.data(), length);
    to[length] = '\0';
  }
  return static_cast<long>(text.size()) + 1;
}

}  // namespace

extern "C" {

void sim_fail(const char *name, long k, int code) { fail(name, k, code); }
long sim_calls(const char *name) { return calls(name); }
long sim_live(const char *kind, int device) { return live(kind, device); }

void sim_stall(int index, int on) {
  if (Device *stalled = device(index)) stalled->stalled = on != 0;
}

// Text of the device's sticky error; empty without one.
long sim_failure(int index, char *to, long capacity) {
  Device *failed = device(index);
  if (!failed) return copy_text("", to, capacity);
  std::lock_guard<std::mutex> lock(failed->mutex);
  return copy_text(failed->error_text, to, capacity);
}

// Whether the library at `path`, which must be loaded, would call this runtime: 1 yes, 0 another one, -1 not loaded.
int sim_serves(const char *path) {
  void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  if (!library) return -1;
  const void *theirs = dlsym(library, "cudaLaunchKernelExC");
  Dl_info found, ours;
  const bool same = theirs && dladdr(theirs, &found) && dladdr(reinterpret_cast<const void *>(&sim_serves), &ours) &&
                    found.dli_fbase == ours.dli_fbase;
  dlclose(library);
  return same;
}

#define NATIVE(result, name) result Java_io_github_syncbn4j_sim_SimNode_##name
#define TEXT(address) reinterpret_cast<char *>(address)

NATIVE(void, fail0)(void *, void *, int64_t name, int64_t k, int32_t code) { sim_fail(TEXT(name), k, code); }
NATIVE(int64_t, calls0)(void *, void *, int64_t name) { return sim_calls(TEXT(name)); }
NATIVE(void, resetCalls0)(void *, void *) {
  reset_calls();
  reset_launches();
}
NATIVE(int64_t, live0)(void *, void *, int64_t kind, int32_t index) { return sim_live(TEXT(kind), index); }
NATIVE(void, stall0)(void *, void *, int32_t index, uint8_t on) { sim_stall(index, on); }
NATIVE(void, revive0)(void *, void *, int32_t index) { revive_device(index); }
NATIVE(int32_t, devices0)(void *, void *) { return settings().devices; }
NATIVE(int64_t, seed0)(void *, void *) { return static_cast<int64_t>(settings().seed); }
NATIVE(int64_t, launches0)(void *, void *, int64_t to, int64_t capacity) {
  return copy_text(launches(), TEXT(to), capacity);
}
NATIVE(int64_t, functions0)(void *, void *, int64_t to, int64_t capacity) {
  return copy_text(functions(), TEXT(to), capacity);
}
NATIVE(int64_t, overruns0)(void *, void *, int64_t to, int64_t capacity) {
  return copy_text(overruns(), TEXT(to), capacity);
}
NATIVE(int64_t, failure0)(void *, void *, int32_t index, int64_t to, int64_t capacity) {
  return sim_failure(index, TEXT(to), capacity);
}
NATIVE(int32_t, serves0)(void *, void *, int64_t path) { return sim_serves(TEXT(path)); }
}
