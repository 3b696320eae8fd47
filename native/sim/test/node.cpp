// Does the node describe itself, count calls and fail on demand?
#include <cuda.h>

#include "check.h"

using namespace syncbn;
using namespace test;

extern "C" long sim_calls(const char *name);

namespace {

TEST(devices_describe_themselves) {
  int value = 0;
  OK(cudaGetDeviceCount(&value));
  CHECK_EQUAL(value, sim::settings().devices);
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 7));
  CHECK_EQUAL(value, 9);
  OK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0));
  CHECK_EQUAL(value, sim::settings().sms);
  CHECK_EQUAL(static_cast<int>(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 8)),
              static_cast<int>(cudaErrorInvalidDevice));
  CHECK_EQUAL(static_cast<int>(cudaSetDevice(8)), static_cast<int>(cudaErrorInvalidDevice));
  OK(cudaGetDevice(&value));
  CHECK_EQUAL(value, 0);
  OK(cudaRuntimeGetVersion(&value));
  CHECK_EQUAL(value, 13000);
  char text[32];
  OK(cuInit(0));
  OK(cuDeviceGetName(text, sizeof text, 0));
  CHECK_CONTAINS(text, "Simulated GPU");
  OK(cudaDeviceGetPCIBusId(text, sizeof text, 3));
  CHECK_CONTAINS(text, "0000:04:00.0");
  CHECK_CONTAINS(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
  CHECK_CONTAINS(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
  cudaGetLastError();
}

TEST(the_chosen_call_fails) {
  sim::reset_calls();
  sim::fail("cudaMalloc", 2, cudaErrorMemoryAllocation);
  void *memory[3] = {};
  OK(cudaMalloc(&memory[0], 8));
  CHECK_EQUAL(static_cast<int>(cudaMalloc(&memory[1], 8)), static_cast<int>(cudaErrorMemoryAllocation));
  CHECK_EQUAL(static_cast<int>(cudaGetLastError()), static_cast<int>(cudaErrorMemoryAllocation));
  CHECK_EQUAL(static_cast<int>(cudaGetLastError()), 0);  // not sticky
  OK(cudaMalloc(&memory[2], 8));
  CHECK_EQUAL(sim_calls("cudaMalloc"), 3L);
  CHECK_EQUAL(sim_calls("cudaFree"), 0L);
  CHECK_EQUAL(sim::live("memory", 0), 16L);
  sim::fail("cudaFree", 1, cudaErrorUnknown);
  sim::fail("cudaFree", 0, 0);  // taken back
  OK(cudaFree(memory[0]));
  OK(cudaFree(memory[2]));
  CHECK_EQUAL(sim::live("memory", -1), 0L);
  CHECK_EQUAL(sim::live("nonsense", -1), -1L);
}

}  // namespace
