// The C ABI of syncbn4j's kernels: what one replica computes on its own device. The only header that Java sees.
//
// Two libraries implement it, libsyncbn_cpu.so (syncbn_cpu_*) and libsyncbn_cuda.so (syncbn_cuda_*). Both take the same
// argument structs, and both load in one process. A training step of one replica is
//
//   forward    stats ─▶ rows ─▶ all-reduce(SUM) of rows ─▶ normalize         (the last block to finish updates the
//   state) backward   backward_reduce ─▶ rows ─▶ all-reduce(SUM) ─▶ backward_input
//
// The all-reduce is the caller's. Nothing here allocates, waits for the device, or calls back.
//
// Tensors are dense and collapsed to [outer, channels, inner]; inner = 1 is channels-last.
// An address is a plain number: a device address for syncbn_cuda_*, a host address for syncbn_cpu_*; 0 is "absent"
// where that is allowed. All addresses must be aligned to their element; 16-byte alignment of tensors is fast.
//
// rows is a float64 buffer [world_size][row]. A replica fills its own row and zeros the others. Since x + 0 is exact, a
// sum over the replicas leaves every replica with the row of every other, bit for bit, whatever the order of the sum.
//   forward row   [signature, count, mean[channels], m2[channels]]          length 2 + 2 * channels
//   backward row  [signature, sum_dy[channels], sum_dy_xhat[channels]]      length 1 + 2 * channels
// A replica without elements (outer = 0 or inner = 0) sends zeros after its signature.
//
// The signature says which step of which layer the row belongs to. Where the rows of a step carry different signatures,
// the replicas called different things: the kernels then leave the state alone and report it through syncbn_control.
// It is neither NaN nor 0: zeros are what a row holds whose replica did not come.
//
// Every function returns a status and never throws; on a status other than SYNCBN_OK, syncbn_*_last_error() of the same
// thread says which value broke which limit. All functions may be called from any thread; calls that share a workspace,
// a saved buffer or state must be ordered by the caller (the same stream does it).
#ifndef SYNCBN_H
#define SYNCBN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Raised when a struct or the meaning of a field changes. A field added at a struct's end does not raise it:
// struct_size tells the library which fields the caller knows.
#define SYNCBN_ABI_VERSION 1

enum syncbn_status {
  SYNCBN_OK = 0,
  SYNCBN_INVALID_ARGUMENT = 1,  // an argument is outside its documented range
  SYNCBN_UNSUPPORTED = 2,       // a documented value that this library cannot compute yet
  SYNCBN_OUT_OF_MEMORY = 3,     // host memory or threads
  SYNCBN_DEVICE_ERROR = 4       // the device's runtime refused a launch; the text holds its error
};

enum syncbn_dtype { SYNCBN_FLOAT32 = 0, SYNCBN_FLOAT16 = 1, SYNCBN_BFLOAT16 = 2, SYNCBN_FLOAT64 = 3 };

typedef uint64_t syncbn_address;

// One per replica, in memory that the host and the device both see; zero at first. Written by both sides with
// system-wide visibility, only ever from 0 to something else.
typedef struct syncbn_control {
  uint32_t aborted;  // host -> kernels: not 0: the step's collective was given up, its rows are garbage, change nothing
  uint32_t mismatch;  // kernels -> host: not 0: 1 + the first rank whose signature differs; written after the two below
  double expected;    // the signature of this replica in that step
  double found;       // the signature of that rank
} syncbn_control;

// Per channel: count, mean and sum of squared deviations (M2) of this replica's share.
typedef struct syncbn_stats_args {
  uint32_t struct_size;      // sizeof(syncbn_stats_args)
  int32_t dtype;             // of x
  int64_t outer;             // >= 0
  int64_t channels;          // >= 1
  int64_t inner;             // >= 0
  int32_t world_size;        // >= 1
  int32_t rank;              // 0 .. world_size - 1
  double signature;          // neither NaN nor 0
  syncbn_address x;          // in   [outer, channels, inner]
  syncbn_address rows;       // out  float64 [world_size][2 + 2 * channels]
  syncbn_address workspace;  // syncbn_*_workspace_bytes(channels), zeroed once by the caller before its first use
  syncbn_address stream;     // cudaStream_t; on the CPU a syncbn_cpu_pool_create()d pool, 0 is the calling thread alone
} syncbn_stats_args;

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, with the statistics of all rows (training) or the moving
// ones.
typedef struct syncbn_normalize_args {
  uint32_t struct_size;        // sizeof(syncbn_normalize_args)
  int32_t dtype;               // of x and y; gamma, beta and the moving statistics are float32 (float64 for float64)
  int64_t outer;               // >= 0
  int64_t channels;            // >= 1
  int64_t inner;               // >= 0
  int32_t world_size;          // >= 1
  int32_t training;            // 1: statistics from rows; 0: from the moving statistics, which are then only read
  double signature;            // training: what every row must carry
  double epsilon;              // added to the variance; finite, >= 0
  double decay;                // training, finite: moving += (batch - moving) * decay; 1 - Keras' momentum
  syncbn_address x;            // in   [outer, channels, inner]
  syncbn_address y;            // out  the same shape; may be x
  syncbn_address gamma;        // in   [channels]; 0: all ones
  syncbn_address beta;         // in   [channels]; 0: all zeros
  syncbn_address rows;         // in   training: float64 [world_size][2 + 2 * channels] after the all-reduce
  syncbn_address moving_mean;  // training: in/out, inference: in   [channels]
  syncbn_address moving_variance;  // training: in/out, inference: in   [channels]; the biased variance
  syncbn_address saved;      // out  float64 [1 + 2 * channels]: total count (0 in inference), mean, 1 / sqrt(variance +
                             // epsilon); 0: not wanted
  syncbn_address control;    // training: the replica's syncbn_control
  syncbn_address workspace;  // as in syncbn_stats_args
  syncbn_address stream;     // as in syncbn_stats_args
} syncbn_normalize_args;

// Per channel: sum of dy and sum of dy * (x - mean) / sigma of this replica's share.
typedef struct syncbn_backward_reduce_args {
  uint32_t struct_size;  // sizeof(syncbn_backward_reduce_args)
  int32_t dtype;         // of x and dy
  int64_t outer;         // >= 0
  int64_t channels;      // >= 1
  int64_t inner;         // >= 0
  int32_t world_size;    // >= 1
  int32_t rank;          // 0 .. world_size - 1
  double signature;      // neither NaN nor 0
  syncbn_address x;      // in   [outer, channels, inner], as in forward
  syncbn_address dy;     // in   the same shape
  syncbn_address saved;  // in   what normalize wrote
  syncbn_address rows;   // out  float64 [world_size][1 + 2 * channels]; 0 after an inference forward: nothing to reduce
  syncbn_address gamma_grad;  // out  [channels], this replica's share, overwritten; 0: not wanted
  syncbn_address beta_grad;   // out  [channels], this replica's share, overwritten; 0: not wanted
  syncbn_address workspace;   // as in syncbn_stats_args
  syncbn_address stream;      // as in syncbn_stats_args
} syncbn_backward_reduce_args;

// dx = gamma / sigma * (dy - sum_dy / n - xhat * sum_dy_xhat / n), sums and n over all rows; after an inference forward
// dx = gamma / sigma * dy.
typedef struct syncbn_backward_input_args {
  uint32_t struct_size;    // sizeof(syncbn_backward_input_args)
  int32_t dtype;           // of x, dy and dx
  int64_t outer;           // >= 0
  int64_t channels;        // >= 1
  int64_t inner;           // >= 0
  int32_t world_size;      // >= 1
  int32_t training;        // what the forward was
  double signature;        // training: what every row must carry
  syncbn_address x;        // in   [outer, channels, inner], as in forward
  syncbn_address dy;       // in   the same shape
  syncbn_address dx;       // out  the same shape; may be dy
  syncbn_address gamma;    // in   [channels]; 0: all ones
  syncbn_address saved;    // in   what normalize wrote
  syncbn_address rows;     // in   training: float64 [world_size][1 + 2 * channels] after the all-reduce
  syncbn_address control;  // training: the replica's syncbn_control
  syncbn_address stream;   // as in syncbn_stats_args
} syncbn_backward_input_args;

// SYNCBN_ABI_VERSION of the library, to compare with the caller's.
int32_t syncbn_cpu_abi_version(void);
// Compiler and instruction sets, one line. Static storage.
const char *syncbn_cpu_build_info(void);
// Why the last call of this thread failed. Valid until the thread's next call into the library.
const char *syncbn_cpu_last_error(void);
// Bytes of workspace for any outer and inner at this number of channels; 0 and an error text for channels < 1.
int64_t syncbn_cpu_workspace_bytes(int64_t channels);
// A fixed pool of `threads` threads (1 .. 256), the caller's included: threads - 1 are started. Written to *pool.
// A call that finds the pool busy with another computes on its own thread: same bits.
int32_t syncbn_cpu_pool_create(int32_t threads, syncbn_address *pool);
// Ends the pool's threads and waits for them. 0 is allowed. No call may be using the pool.
int32_t syncbn_cpu_pool_destroy(syncbn_address pool);
int32_t syncbn_cpu_stats(const syncbn_stats_args *args);
int32_t syncbn_cpu_normalize(const syncbn_normalize_args *args);
int32_t syncbn_cpu_backward_reduce(const syncbn_backward_reduce_args *args);
int32_t syncbn_cpu_backward_input(const syncbn_backward_input_args *args);

// The same for the current CUDA device: kernels are enqueued on args->stream, which must belong to it.
int32_t syncbn_cuda_abi_version(void);
const char *syncbn_cuda_build_info(void);
const char *syncbn_cuda_last_error(void);
int64_t syncbn_cuda_workspace_bytes(int64_t channels);
int32_t syncbn_cuda_stats(const syncbn_stats_args *args);
int32_t syncbn_cuda_normalize(const syncbn_normalize_args *args);
int32_t syncbn_cuda_backward_reduce(const syncbn_backward_reduce_args *args);
int32_t syncbn_cuda_backward_input(const syncbn_backward_input_args *args);

#ifdef __cplusplus
}
#endif

#endif
