// What compiled device code calls in the simulated runtime. C functions: device_language.h gives them CUDA's names.
#ifndef SYNCBN_SIM_DEVICE_RUNTIME_H
#define SYNCBN_SIM_DEVICE_RUNTIME_H

#include <cuda_runtime.h>
#include <stdint.h>

// Rewritten at each switch between device threads. __thread, not thread_local: no wrapper call at each use.
// They are objects, not macros, since cudaLaunchConfig_t has members of the same names.
extern "C" {
extern __attribute__((tls_model("initial-exec"))) __thread uint3 threadIdx, blockIdx, blockDim, gridDim;

enum sim_barrier_kind { SIM_BARRIER, SIM_BARRIER_OR, SIM_BARRIER_AND, SIM_BARRIER_COUNT };
enum sim_warp_operation {
  SIM_WARP_SYNC,
  SIM_WARP_BALLOT,
  SIM_WARP_SHUFFLE,
  SIM_WARP_SHUFFLE_UP,
  SIM_WARP_SHUFFLE_DOWN,
  SIM_WARP_SHUFFLE_XOR
};

int sim_barrier(enum sim_barrier_kind kind, int value, int line);
uint64_t sim_warp(enum sim_warp_operation operation, uint32_t mask, uint64_t value, int operand, int width, int line);
void sim_grid_barrier(int line);
// Lets other device threads run; called for each load of a flag that another thread may set.
void sim_spin(const void *flag);
void sim_before_atomic(const void *address);
void sim_fence(void);
void *sim_dynamic_shared(void);

void sim_register_kernel(const void *kernel, void (*call)(const void *kernel, const void *params), size_t params_size,
                         void *(*touch)(void));
}

#endif
