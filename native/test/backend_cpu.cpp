// The tests' device is the host: libsyncbn_cpu with a pool of two threads.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "cpu/lanes.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace backend {

const char *const kName = "cpu";
// At most kMaxAdditions one after the other and 2 levels of a tree, or fewer and 3 levels (lanes.h), one subtraction,
// one product.
const int kRoundings = static_cast<int>(syncbn::cpu::kMaxAdditions) + 2 + 1 + 1;
const int64_t kMaxElements = 40000;
const int kSweepStride = 1;

void *allocate(size_t bytes) {
  void *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!address) {
    fprintf(stderr, "out of memory: %zu bytes\n", bytes);
    abort();
  }
  return address;
}

void release(void *address) { free(address); }

void *allocate_shared(size_t bytes) {
  void *address = allocate(bytes);
  memset(address, 0, bytes);
  return address;
}

void release_shared(void *address) { release(address); }
void upload(void *device, const void *host, size_t bytes) { memcpy(device, host, bytes); }
void download(void *host, const void *device, size_t bytes) { memcpy(host, device, bytes); }

#if defined(__SANITIZE_ADDRESS__)
void forbid(void *address, size_t bytes, bool forbidden) {
  if (forbidden) {
    ASAN_POISON_MEMORY_REGION(address, bytes);
  } else {
    ASAN_UNPOISON_MEMORY_REGION(address, bytes);
  }
}
#else
void forbid(void *, size_t, bool) {}
#endif

syncbn_address stream() {
  struct Pool {
    syncbn_address address = 0;

    Pool() {
      if (syncbn_cpu_pool_create(2, &address) == SYNCBN_OK) return;
      fprintf(stderr, "%s\n", syncbn_cpu_last_error());
      abort();
    }
    ~Pool() { syncbn_cpu_pool_destroy(address); }
  };
  static const Pool pool;
  return pool.address;
}

void synchronize() {}

int64_t workspace_bytes(int64_t channels) { return syncbn_cpu_workspace_bytes(channels); }
const char *last_error() { return syncbn_cpu_last_error(); }
const char *build_info() { return syncbn_cpu_build_info(); }
int32_t abi_version() { return syncbn_cpu_abi_version(); }
int32_t stats(const syncbn_stats_args *args) { return syncbn_cpu_stats(args); }
int32_t normalize(const syncbn_normalize_args *args) { return syncbn_cpu_normalize(args); }
int32_t backward_reduce(const syncbn_backward_reduce_args *args) { return syncbn_cpu_backward_reduce(args); }
int32_t backward_input(const syncbn_backward_input_args *args) { return syncbn_cpu_backward_input(args); }
int32_t copy(const syncbn_copy_args *args) { return syncbn_cpu_copy(args); }

const bool kHasDirections = false;
int32_t forward(const syncbn_stats_args *, const syncbn_normalize_args *) { return SYNCBN_UNSUPPORTED; }
int32_t backward(const syncbn_backward_reduce_args *, const syncbn_backward_input_args *) { return SYNCBN_UNSUPPORTED; }

}  // namespace backend
