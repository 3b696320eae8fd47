// Is device memory as unforgiving as a GPU's, and more?
#include "sim/memory.h"

#include <math.h>

#include "check.h"

using namespace syncbn;
using namespace test;

namespace {

struct PokeParams {
  float *x;
  long index;
  bool write;
  float *out;
};

__global__ void poke(PokeParams p) {
  if (p.write) {
    p.x[p.index] = 1.0f;
  } else {
    *p.out = p.x[p.index];
  }
}

int poke_at(float *x, long index, bool write, float *out) {
  OK(launch(poke, dim3(1), dim3(1), nullptr, PokeParams{x, index, write, out}));
  return cudaDeviceSynchronize();
}

TEST(fresh_memory_is_nan) {
  Buffer<float> x(100);
  for (float value : x.download()) CHECK(isnan(value));
  Buffer<double> y(3);
  for (double value : y.download()) CHECK(isnan(value));
  float *pinned = nullptr;
  OK(cudaHostAlloc(reinterpret_cast<void **>(&pinned), 40, cudaHostAllocMapped));
  for (int i = 0; i < 10; ++i) CHECK(isnan(pinned[i]));
  OK(cudaFreeHost(pinned));
}

TEST(guards_stop_kernels) {
  Buffer<float> x(64), out(1);  // 256 bytes: ends at the guard
  CHECK_EQUAL(poke_at(x.device, 63, true, out.device), 0);
  for (bool write : {true, false}) {
    CHECK_EQUAL(poke_at(x.device, 64, write, out.device), static_cast<int>(cudaErrorIllegalAddress));
    // Sticky: everything on the device fails until it is revived.
    void *more = nullptr;
    CHECK_EQUAL(static_cast<int>(cudaMalloc(&more, 16)), static_cast<int>(cudaErrorIllegalAddress));
    CHECK_EQUAL(static_cast<int>(cudaGetLastError()), static_cast<int>(cudaErrorIllegalAddress));
    CHECK_EQUAL(static_cast<int>(cudaGetLastError()), static_cast<int>(cudaErrorIllegalAddress));
    OK(cudaSetDevice(1));
    OK(cudaMalloc(&more, 16));
    OK(cudaFree(more));
    CHECK_EQUAL(static_cast<int>(cudaSetDevice(0)), static_cast<int>(cudaErrorIllegalAddress));
    CHECK_CONTAINS(take_failure(0), "256 bytes from the start of an allocation of 256 bytes");
  }
  CHECK_EQUAL(poke_at(x.device, 0, true, out.device), 0);
}

TEST(freed_memory_is_inaccessible) {
  Buffer<float> out(1);
  float *x = nullptr;
  OK(cudaMalloc(reinterpret_cast<void **>(&x), 256));
  OK(cudaFree(x));
  CHECK_EQUAL(poke_at(x, 0, false, out.device), static_cast<int>(cudaErrorIllegalAddress));
  CHECK_CONTAINS(take_failure(0), "was freed");
  CHECK_EQUAL(static_cast<int>(cudaFree(x)), static_cast<int>(cudaErrorInvalidValue));
  cudaGetLastError();
}

TEST(writes_beside_an_allocation_are_found) {
  for (long index : {-1L, 10L}) {
    float *x = nullptr;
    OK(cudaMalloc(reinterpret_cast<void **>(&x), 40));
    CHECK(sim::overruns().empty());
    CHECK_EQUAL(poke_at(x, index, true, x), 0);  // within the page: found by whoever asks, and by cudaFree
    CHECK_CONTAINS(sim::overruns(), "around an allocation of 40 bytes");
    CHECK_EQUAL(static_cast<int>(cudaFree(x)), static_cast<int>(cudaErrorIllegalAddress));
    CHECK_CONTAINS(take_failure(0), "around an allocation of 40 bytes");
  }
}

TEST(memory_is_limited) {
  size_t free = 0, total = 0, less = 0;
  OK(cudaMemGetInfo(&free, &total));
  void *a = nullptr, *b = nullptr;
  CHECK_EQUAL(static_cast<int>(cudaMalloc(&a, total + 1)), static_cast<int>(cudaErrorMemoryAllocation));
  CHECK(a == nullptr);
  OK(cudaMalloc(&a, 1 << 20));
  OK(cudaMemGetInfo(&less, &total));
  CHECK_EQUAL(free - less, size_t{1} << 20);
  Scope scope;
  sim::settings().memory = 3 << 19;
  CHECK_EQUAL(static_cast<int>(cudaMalloc(&b, 1 << 20)), static_cast<int>(cudaErrorMemoryAllocation));
  OK(cudaSetDevice(1));  // each device has its own
  OK(cudaMalloc(&b, 1 << 20));
  OK(cudaFree(b));
  OK(cudaSetDevice(0));
  OK(cudaFree(a));
  cudaGetLastError();
}

TEST(copies_stay_in_one_allocation) {
  Buffer<float> x(64), y(64);
  std::vector<float> host(200, 1.0f);
  const int invalid = cudaErrorInvalidValue;
  CHECK_EQUAL(static_cast<int>(cudaMemcpy(x.device, host.data(), 260, cudaMemcpyHostToDevice)), invalid);
  CHECK_EQUAL(static_cast<int>(cudaMemcpy(host.data(), x.device + 1, 256, cudaMemcpyDeviceToHost)), invalid);
  CHECK_EQUAL(static_cast<int>(cudaMemcpy(host.data(), x.device, 256, cudaMemcpyHostToDevice)), invalid);
  CHECK_EQUAL(static_cast<int>(cudaMemcpy(x.device, y.device, 256, cudaMemcpyHostToDevice)), invalid);
  CHECK_EQUAL(static_cast<int>(cudaMemset(x.device + 1, 0, 256)), invalid);
  OK(cudaMemcpy(x.device, host.data(), 256, cudaMemcpyDefault));
  OK(cudaMemcpy(y.device, x.device, 256, cudaMemcpyDeviceToDevice));
  CHECK_EQUAL(y.download()[63], 1.0f);
  OK(cudaMemset(y.device, 0, 4));
  CHECK_EQUAL(y.download()[0], 0.0f);
  CHECK_EQUAL(y.host[1], 1.0f);
  cudaGetLastError();
}

TEST(pointers_know_where_they_are) {
  cudaPointerAttributes attributes;
  OK(cudaSetDevice(2));
  Buffer<float> x(8);
  OK(cudaSetDevice(0));
  OK(cudaPointerGetAttributes(&attributes, x.device + 7));
  CHECK_EQUAL(static_cast<int>(attributes.type), static_cast<int>(cudaMemoryTypeDevice));
  CHECK_EQUAL(attributes.device, 2);
  CHECK(attributes.devicePointer == x.device + 7);
  CHECK(attributes.hostPointer == nullptr);
  // No error, for memory that was never the runtime's and for what lies behind an allocation.
  for (const void *pointer : {static_cast<const void *>(&attributes), static_cast<const void *>(x.device + 8)}) {
    OK(cudaPointerGetAttributes(&attributes, pointer));
    CHECK_EQUAL(static_cast<int>(attributes.type), static_cast<int>(cudaMemoryTypeUnregistered));
  }
  void *pinned = nullptr, *mapped = nullptr;
  OK(cudaHostAlloc(&pinned, 8, cudaHostAllocMapped));
  OK(cudaHostGetDevicePointer(&mapped, pinned, 0));
  CHECK(mapped == pinned);
  void *inside = static_cast<char *>(pinned) + 4;
  OK(cudaPointerGetAttributes(&attributes, inside));
  CHECK_EQUAL(static_cast<int>(attributes.type), static_cast<int>(cudaMemoryTypeHost));
  CHECK(attributes.hostPointer == inside);
  CHECK_EQUAL(static_cast<int>(cudaFree(pinned)), static_cast<int>(cudaErrorInvalidValue));
  OK(cudaFreeHost(pinned));
  cudaGetLastError();
}

}  // namespace
