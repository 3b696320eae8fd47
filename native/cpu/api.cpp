// The library's own functions: version, build, the last error, sizes, pools.
#include <new>
#include <system_error>

#include "call.h"
#include "lanes.h"
#include "loops.h"
#include "pool.h"

#ifndef SYNCBN_VERSION
#error "SYNCBN_VERSION is the version that build_info reports"
#endif

namespace syncbn::cpu {

Error &thread_error() {
  static thread_local Error error;
  return error;
}

namespace {

constexpr int32_t kMaxThreads = 256;

struct BuildInfo {
  char text[128];

  BuildInfo() { snprintf(text, sizeof text, "syncbn_cpu " SYNCBN_VERSION ", g++ " __VERSION__ ", %s", loops().name); }
};

}  // namespace
}  // namespace syncbn::cpu

extern "C" {

int32_t syncbn_cpu_abi_version(void) { return SYNCBN_ABI_VERSION; }

const char *syncbn_cpu_build_info(void) {
  static const syncbn::cpu::BuildInfo info;
  return info.text;
}

const char *syncbn_cpu_last_error(void) { return syncbn::cpu::thread_error().text; }

int64_t syncbn_cpu_workspace_bytes(int64_t channels) {
  if (syncbn::check_channels(channels, syncbn::cpu::thread_error())) return 0;
  return syncbn::cpu::workspace_bytes(channels);
}

int32_t syncbn_cpu_pool_create(int32_t threads, syncbn_address *pool) {
  using namespace syncbn::cpu;
  syncbn::Requirements requirements(thread_error());
  requirements.require(threads >= 1 && threads <= kMaxThreads, SYNCBN_INVALID_ARGUMENT,
                       "threads is %d; it must be 1 .. %d", threads, kMaxThreads);
  requirements.require(pool != nullptr, SYNCBN_INVALID_ARGUMENT, "pool is null");
  if (!requirements.hold()) return requirements.status();
  try {
    *pool = reinterpret_cast<syncbn_address>(new Pool(threads));
    return SYNCBN_OK;
  } catch (const std::system_error &error) {
    return syncbn::fail(thread_error(), SYNCBN_OUT_OF_MEMORY, "a pool of %d threads: %s", threads, error.what());
  } catch (const std::bad_alloc &) {
    return syncbn::fail(thread_error(), SYNCBN_OUT_OF_MEMORY, "a pool of %d threads: out of memory", threads);
  }
}

int32_t syncbn_cpu_pool_destroy(syncbn_address pool) {
  syncbn::cpu::thread_error().text[0] = '\0';
  delete reinterpret_cast<syncbn::cpu::Pool *>(pool);
  return SYNCBN_OK;
}

}  // extern "C"
