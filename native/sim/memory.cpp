// Device memory and pinned memory: allocation with guards, copies and fills.
//
// An allocation ends (rounded up to 256 bytes) at an inaccessible page; the bytes around it hold a canary that is
// checked when it is freed. Fresh memory is 0xff, NaN in every type. Freed ranges stay inaccessible for a while.
#include "memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include "graph.h"
#include "stream.h"

namespace syncbn::sim {

namespace {

constexpr size_t kAlign = 256;           // of cudaMalloc
constexpr unsigned char kCanary = 0xfb;  // huge as a float of any width, so that reading it is noticed too
constexpr size_t kQuarantine = 128;      // freed ranges that are kept inaccessible

struct Memory {
  std::mutex mutex;
  std::map<uintptr_t, Allocation> live;  // by address
  std::deque<Allocation> freed;
};

Memory &memory() {
  static Memory *all = new Memory;
  return *all;
}

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }
size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

struct Use {
  long allocations = 0, bytes = 0;
};

Use in_use(MemoryKind kind, int device) {
  std::lock_guard<std::mutex> lock(memory().mutex);
  Use use;
  for (const auto &entry : memory().live) {
    const Allocation &a = entry.second;
    if (a.kind != kind || (device >= 0 && a.device != device)) continue;
    ++use.allocations;
    use.bytes += static_cast<long>(a.size);
  }
  return use;
}

const bool kCounted =
    (count_live("memory", [](int device) { return in_use(MemoryKind::kDevice, device).bytes; }),
     count_live("allocations", [](int device) { return in_use(MemoryKind::kDevice, device).allocations; }),
     count_live("hostMemory", [](int device) { return in_use(MemoryKind::kHost, device).bytes; }),
     count_live("hostAllocations", [](int device) { return in_use(MemoryKind::kHost, device).allocations; }), true);

cudaError_t allocate(MemoryKind kind, size_t size, void **pointer) {
  if (!pointer) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (size == 0) return cudaSuccess;
  const int device = thread_state.device;
  if (kind == MemoryKind::kDevice) {
    const size_t used = static_cast<size_t>(in_use(kind, device).bytes);
    if (size > settings().memory || used > settings().memory - size) return cudaErrorMemoryAllocation;
  }
  Allocation a;
  const size_t page = page_size(), room = round_up(size, kAlign);
  a.mapped = round_up(room, page) + 2 * page;
  void *mapping = mmap(nullptr, a.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return cudaErrorMemoryAllocation;
  a.mapping = static_cast<char *>(mapping);
  a.address = a.mapping + a.mapped - page - room;
  a.size = size;
  a.kind = kind;
  a.device = device;
  memset(a.mapping + page, kCanary, a.mapped - 2 * page);
  memset(a.address, 0xff, size);
  mprotect(a.mapping, page, PROT_NONE);
  mprotect(a.mapping + a.mapped - page, page, PROT_NONE);
  std::lock_guard<std::mutex> lock(memory().mutex);
  memory().live[reinterpret_cast<uintptr_t>(a.address)] = a;
  *pointer = a.address;
  return cudaSuccess;
}

bool canary_intact(const Allocation &a) {
  const size_t page = page_size();
  const auto *low = reinterpret_cast<const unsigned char *>(a.mapping + page);
  const auto *start = reinterpret_cast<const unsigned char *>(a.address), *end = start + a.size;
  const auto *high = reinterpret_cast<const unsigned char *>(a.mapping + a.mapped - page);
  const auto intact = [](unsigned char byte) { return byte == kCanary; };
  return std::all_of(low, start, intact) && std::all_of(end, high, intact);
}

std::string describe_overrun(const Allocation &a) {
  return format("bytes around an allocation of %zu bytes at %p on device %d were written", a.size,
                static_cast<void *>(a.address), a.device);
}

cudaError_t release(MemoryKind kind, void *pointer) {
  if (!pointer) return device_status();
  if (const cudaError_t error = check_unsafe_call()) return error;
  Allocation a;
  if (!find_start(pointer, &a) || a.address != pointer || a.kind != kind) return cudaErrorInvalidValue;
  drain_device(a.device);
  {
    std::lock_guard<std::mutex> lock(memory().mutex);
    if (memory().live.erase(reinterpret_cast<uintptr_t>(pointer)) == 0) return cudaErrorInvalidValue;
  }
  const bool intact = canary_intact(a);
  mprotect(a.mapping, a.mapped, PROT_NONE);
  madvise(a.mapping, a.mapped, MADV_DONTNEED);
  {
    std::lock_guard<std::mutex> lock(memory().mutex);
    memory().freed.push_back(a);
    if (memory().freed.size() > kQuarantine) {
      munmap(memory().freed.front().mapping, memory().freed.front().mapped);
      memory().freed.pop_front();
    }
  }
  if (!intact) {
    fail_device(a.device, cudaErrorIllegalAddress, describe_overrun(a));
    return cudaErrorIllegalAddress;
  }
  return device_status();
}

// Whether a range may be one end of a copy that calls it host or device memory. Pageable host memory is unknown here.
cudaError_t check_end(const void *pointer, size_t size, bool as_device) {
  Allocation a;
  if (!find_start(pointer, &a)) return as_device ? cudaErrorInvalidValue : cudaSuccess;
  if (as_device != (a.kind == MemoryKind::kDevice)) return cudaErrorInvalidValue;
  return find_allocation(pointer, size, &a) ? cudaSuccess : cudaErrorInvalidValue;
}

bool is_device(const void *pointer) {
  Allocation a;
  return find_start(pointer, &a) && a.kind == MemoryKind::kDevice;
}

bool is_pageable(const void *pointer) {
  Allocation a;
  return !find_start(pointer, &a);
}

cudaError_t check_copy(void *to, const void *from, size_t size, cudaMemcpyKind kind) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  const bool to_device =
      kind == cudaMemcpyDefault ? is_device(to) : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device =
      kind == cudaMemcpyDefault ? is_device(from) : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (const cudaError_t error = check_end(to, size, to_device)) return error;
  return check_end(from, size, from_device);
}

Operation copy_operation(void *to, const void *from, size_t size) {
  return {[=](Crew &) { memmove(to, from, size); }, "", false};
}

// A caller's pageable memory is free to change when the copy returns, and filled when it returns: so CUDA reads it
// first, and waits for what it writes to it.
cudaError_t copy_async(void *to, const void *from, size_t size, Stream &stream) {
  if (capturing(stream)) return submit(stream, copy_operation(to, from, size));
  if (is_pageable(from)) {
    const char *bytes = static_cast<const char *>(from);
    auto staged = std::make_shared<std::vector<char>>(bytes, bytes + size);
    const cudaError_t error = submit(stream, {[=](Crew &) { memcpy(to, staged->data(), size); }, "", false});
    if (error || !is_pageable(to)) return error;
  } else if (const cudaError_t error = submit(stream, copy_operation(to, from, size))) {
    return error;
  }
  if (is_pageable(to)) drain(stream);
  return device_status();
}

}  // namespace

bool find_start(const void *pointer, Allocation *found) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(pointer);
  std::lock_guard<std::mutex> lock(memory().mutex);
  auto it = memory().live.upper_bound(at);
  if (it == memory().live.begin()) return false;
  --it;
  if (at >= it->first + it->second.size) return false;
  *found = it->second;
  return true;
}

bool find_allocation(const void *pointer, size_t size, Allocation *found) {
  if (!find_start(pointer, found)) return false;
  return static_cast<const char *>(pointer) + size <= found->address + found->size;
}

std::string overruns() {
  std::lock_guard<std::mutex> lock(memory().mutex);
  std::string lines;
  for (const auto &entry : memory().live) {
    if (!canary_intact(entry.second)) lines += describe_overrun(entry.second) + "\n";
  }
  return lines;
}

void describe_address(const void *address, char *text, size_t capacity) {
  const char *at = static_cast<const char *>(address);
  const auto near = [&](const Allocation &a) { return at >= a.mapping && at < a.mapping + a.mapped; };
  std::lock_guard<std::mutex> lock(memory().mutex);
  for (const auto &entry : memory().live) {
    const Allocation &a = entry.second;
    if (!near(a)) continue;
    snprintf(text, capacity, "a kernel touched %p, %ld bytes from the start of an allocation of %zu bytes on device %d",
             address, static_cast<long>(at - a.address), a.size, a.device);
    return;
  }
  for (const Allocation &a : memory().freed) {
    if (!near(a)) continue;
    snprintf(text, capacity, "a kernel touched %p, in an allocation of %zu bytes on device %d that was freed", address,
             a.size, a.device);
    return;
  }
  snprintf(text, capacity, "a kernel touched %p, which is in no allocation", address);
}

}  // namespace syncbn::sim

using namespace syncbn::sim;

extern "C" {

cudaError_t cudaMalloc(void **pointer, size_t size) {
  return api("cudaMalloc", [&] {
    if (const cudaError_t error = check_unsafe_call()) return error;
    if (const cudaError_t error = device_status()) return error;
    return allocate(MemoryKind::kDevice, size, pointer);
  });
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned int flags) {
  return api("cudaHostAlloc", [&] {
    if (flags & ~7u) return cudaErrorInvalidValue;
    if (const cudaError_t error = check_unsafe_call()) return error;
    if (const cudaError_t error = device_status()) return error;
    return allocate(MemoryKind::kHost, size, pointer);
  });
}

cudaError_t cudaFree(void *pointer) {
  return api("cudaFree", [&] { return release(MemoryKind::kDevice, pointer); });
}

cudaError_t cudaFreeHost(void *pointer) {
  return api("cudaFreeHost", [&] { return release(MemoryKind::kHost, pointer); });
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  return api("cudaMemGetInfo", [&] {
    if (const cudaError_t error = device_status()) return error;
    if (!free || !total) return cudaErrorInvalidValue;
    *total = settings().memory;
    *free = *total - static_cast<size_t>(in_use(MemoryKind::kDevice, thread_state.device).bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned int flags) {
  return api("cudaHostGetDevicePointer", [&] {
    Allocation a;
    if (!device || flags != 0 || !find_start(host, &a) || a.kind != MemoryKind::kHost) return cudaErrorInvalidValue;
    *device = host;
    return device_status();
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
  return api("cudaPointerGetAttributes", [&] {
    if (const cudaError_t error = device_status()) return error;
    if (!attributes) return cudaErrorInvalidValue;
    void *address = const_cast<void *>(pointer);
    *attributes = {};
    Allocation a;
    if (!find_start(pointer, &a)) {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->device = -2;
      attributes->hostPointer = address;
      return cudaSuccess;
    }
    const bool on_device = a.kind == MemoryKind::kDevice;
    attributes->type = on_device ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    attributes->device = a.device;
    attributes->devicePointer = address;
    attributes->hostPointer = on_device ? nullptr : address;
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind) {
  return api("cudaMemcpy", [&] {
    if (const cudaError_t error = device_status()) return error;
    if (size == 0) return cudaSuccess;
    if (const cudaError_t error = check_copy(to, from, size, kind)) return error;
    if (const cudaError_t error = check_unsafe_call()) return error;
    const std::shared_ptr<Stream> stream = find_stream(nullptr);
    if (const cudaError_t error = submit(*stream, copy_operation(to, from, size))) return error;
    drain(*stream);
    return device_status();
  });
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t handle) {
  return api("cudaMemcpyAsync", [&] {
    if (const cudaError_t error = device_status()) return error;
    const std::shared_ptr<Stream> stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (size == 0) return cudaSuccess;
    if (const cudaError_t error = check_copy(to, from, size, kind)) return error;
    return copy_async(to, from, size, *stream);
  });
}

cudaError_t cudaMemset(void *to, int value, size_t size) {
  return api("cudaMemset", [&] {
    if (const cudaError_t error = device_status()) return error;
    if (const cudaError_t error = check_unsafe_call()) return error;
    Allocation a;
    if (size == 0) return cudaSuccess;
    if (!find_allocation(to, size, &a)) return cudaErrorInvalidValue;
    return submit(*find_stream(nullptr), {[=](Crew &) { memset(to, value, size); }, "", false});
  });
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t handle) {
  return api("cudaMemsetAsync", [&] {
    if (const cudaError_t error = device_status()) return error;
    std::shared_ptr<Stream> stream;
    if (const cudaError_t error = find_stream_here(handle, &stream)) return error;
    Allocation a;
    if (size == 0) return cudaSuccess;
    if (!find_allocation(to, size, &a)) return cudaErrorInvalidValue;
    return submit(*stream, {[=](Crew &) { memset(to, value, size); }, "", false});
  });
}
}
