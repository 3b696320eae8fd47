// Does ThreadSanitizer see a missing fence between blocks? Run with "fenced", "unfenced" or "unacquired".
#include <stdio.h>
#include <string.h>

#include "sim/device_language.h"
#include "sim/sim.h"

namespace {

struct Params {
  double *parts;  // one a block
  unsigned *ticket;
  double *total;
  bool release, acquire;
};

// Each block leaves a part, the last one to come adds them.
__global__ void sum_of_parts(Params p) {
  __shared__ unsigned drawn;
  if (threadIdx.x == 0) {
    p.parts[blockIdx.x] = 1.0 + blockIdx.x;
    if (p.release) __threadfence();
    drawn = atomicInc(p.ticket, gridDim.x - 1);
    if (p.acquire) __threadfence();
  }
  __syncthreads();
  if (drawn != gridDim.x - 1 || threadIdx.x != 0) return;
  double total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += p.parts[b];
  *p.total = total;
}

}  // namespace

int main(int count, char **arguments) {
  const char *kind = count > 1 ? arguments[1] : "fenced";
  double *parts = nullptr, *total = nullptr, result = 0;
  unsigned *ticket = nullptr;
  cudaMalloc(reinterpret_cast<void **>(&parts), 64 * sizeof *parts);
  cudaMalloc(reinterpret_cast<void **>(&total), sizeof *total);
  cudaMalloc(reinterpret_cast<void **>(&ticket), sizeof *ticket);
  cudaMemset(ticket, 0, sizeof *ticket);
  // Several launches, since a race is seen only where both threads of the crew get blocks.
  for (int repeat = 0; repeat < 10; ++repeat) {
    const Params params = {parts, ticket, total, strcmp(kind, "unfenced") != 0, strcmp(kind, "unacquired") != 0};
    if (syncbn::launch(sum_of_parts, dim3(64), dim3(32), nullptr, params) != cudaSuccess) return 1;
    cudaMemcpy(&result, total, sizeof result, cudaMemcpyDeviceToHost);
    if (result != 64 * 65 / 2) return 2;
  }
  printf("%s: %g\n", kind, result);
  return 0;
}
