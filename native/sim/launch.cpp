// What is a kernel here, which launches are refused, and what has been launched?
#include "launch.h"

#include <string.h>

#include <algorithm>

#include "device_runtime.h"
#include "stream.h"

namespace syncbn::sim {

namespace {

struct Kernels {
  std::mutex mutex;
  std::map<const void *, std::shared_ptr<Kernel>> by_address;
  std::map<const void *, size_t> dynamic_shared_limits;  // bytes; a limit may be set before the first launch
};
Kernels &kernels() {
  static Kernels *all = new Kernels;
  return *all;
}

struct Log {
  std::mutex mutex;
  std::string lines;
};
Log &launch_log() {
  static Log *log = new Log;
  return *log;
}

constexpr size_t kDynamicSharedDefault = 48u << 10, kDynamicSharedMost = 227u << 10;

bool fits(dim3 grid, dim3 block) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0) return false;
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return false;
  if (block.x > 1024 || block.y > 1024 || block.z > 64) return false;
  return static_cast<uint64_t>(block.x) * block.y * block.z <= 1024;
}

std::string describe(const Launch &launch) {
  return format("%d %s (%u,%u,%u) (%u,%u,%u)", launch.device, launch.kernel->name.c_str(), launch.grid.x, launch.grid.y,
                launch.grid.z, launch.block.x, launch.block.y, launch.block.z);
}

// "kernel" counts executions; a fault injected there poisons the device, as a kernel's does.
void execute(const Launch &launch, Crew &crew) {
  static Site &executions = site("kernel");
  if (const int injected = enter(executions)) {
    fail_device(launch.device, static_cast<cudaError_t>(injected), "injected into " + launch.kernel->name);
    return;
  }
  run_grid(launch, crew);
}

cudaError_t launch_kernel(const cudaLaunchConfig_t &config, const void *address, void **arguments) {
  auto launch = std::make_shared<Launch>();
  {
    std::lock_guard<std::mutex> lock(kernels().mutex);
    const auto it = kernels().by_address.find(address);
    if (it == kernels().by_address.end()) return cudaErrorInvalidDeviceFunction;
    launch->kernel = it->second;
    const auto limit = kernels().dynamic_shared_limits.find(address);
    const size_t most = limit == kernels().dynamic_shared_limits.end() ? kDynamicSharedDefault : limit->second;
    if (config.dynamicSmemBytes > most) return cudaErrorInvalidValue;
  }
  if (!fits(config.gridDim, config.blockDim)) return cudaErrorInvalidConfiguration;
  // A grid is executed block by block here: more blocks than this is a mistake, or a test for a GPU.
  if (static_cast<uint64_t>(config.gridDim.x) * config.gridDim.y * config.gridDim.z > 0x7fffffff) {
    return cudaErrorInvalidConfiguration;
  }
  std::shared_ptr<Stream> stream;
  if (const cudaError_t error = find_stream_here(config.stream, &stream)) return error;
  launch->grid = config.gridDim;
  launch->block = config.blockDim;
  launch->dynamic_shared = config.dynamicSmemBytes;
  launch->device = thread_state.device;
  launch->cooperative = false;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id == cudaLaunchAttributeCooperative) {
      launch->cooperative = config.attrs[i].val.cooperative != 0;
    } else if (config.attrs[i].id != cudaLaunchAttributeIgnore) {
      return cudaErrorInvalidValue;
    }
  }
  if (launch->cooperative) {
    const int resident = settings().sms * resident_blocks(launch->threads(), launch->dynamic_shared);
    if (launch->blocks() > static_cast<unsigned>(resident)) return cudaErrorCooperativeLaunchTooLarge;
  }
  // Launches are asynchronous and captured: the caller's arguments are gone by then.
  const char *params = static_cast<const char *>(arguments[0]);
  launch->params.assign(params, params + launch->kernel->params_size);
  return submit(*stream, {[launch](Crew &crew) { execute(*launch, crew); }, describe(*launch), false});
}

}  // namespace

int resident_blocks(unsigned threads, size_t dynamic_shared) {
  if (threads == 0 || threads > 1024 || dynamic_shared > kDynamicSharedMost) return 0;
  const unsigned warps = (threads + 31) / 32;
  // 1 KiB of each block's shared memory is the system's.
  const size_t by_shared = (228u << 10) / (dynamic_shared + (1u << 10));
  return static_cast<int>(std::min<size_t>({64 / warps, 32, by_shared}));
}

void log_launch(const std::string &line) {
  std::lock_guard<std::mutex> lock(launch_log().mutex);
  launch_log().lines += line + "\n";
}

std::string launches() {
  std::lock_guard<std::mutex> lock(launch_log().mutex);
  return launch_log().lines;
}

void reset_launches() {
  std::lock_guard<std::mutex> lock(launch_log().mutex);
  launch_log().lines.clear();
}

}  // namespace syncbn::sim

using namespace syncbn::sim;

extern "C" {

void sim_register_kernel(const void *kernel, void (*call)(const void *kernel, const void *params), size_t params_size,
                         void *(*touch)()) {
  {
    std::lock_guard<std::mutex> lock(kernels().mutex);
    if (kernels().by_address.count(kernel)) return;
  }
  auto made = std::make_shared<Kernel>(Kernel{kernel, call, params_size, touch, function_name(kernel)});
  std::lock_guard<std::mutex> lock(kernels().mutex);
  kernels().by_address.emplace(kernel, std::move(made));
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
  return api("cudaLaunchKernelExC", [&] {
    if (const cudaError_t error = device_status()) return error;
    return config && arguments ? launch_kernel(*config, kernel, arguments) : cudaErrorInvalidValue;
  });
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  return api("cudaFuncSetAttribute", [&] {
    if (!kernel) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return device_status();
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<size_t>(value) > kDynamicSharedMost) {
      return cudaErrorInvalidValue;
    }
    std::lock_guard<std::mutex> lock(kernels().mutex);
    kernels().dynamic_shared_limits[kernel] = static_cast<size_t>(value);
    return device_status();
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int threads,
                                                          size_t dynamic_shared) {
  return api("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&] {
    if (!blocks || threads < 1) return cudaErrorInvalidValue;
    if (!kernel) return cudaErrorInvalidDeviceFunction;
    *blocks = resident_blocks(static_cast<unsigned>(threads), dynamic_shared);
    return device_status();
  });
}
}
