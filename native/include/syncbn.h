// The C ABI of syncbn4j's kernels: what one replica computes on its own device. The only header that Java sees.
//
// Two libraries implement it, libsyncbn_cpu.so (syncbn_cpu_*) and libsyncbn_cuda.so (syncbn_cuda_*). Both take the same
// argument structs, and both load in one process. A training step of one replica is
//
//   forward    stats ─▶ rows ─▶ all-reduce(SUM) of rows ─▶ normalize (which also updates the state)
//   backward   backward_reduce ─▶ rows ─▶ all-reduce(SUM) of rows ─▶ backward_input
//
// The all-reduce is the caller's. Nothing here allocates, waits for the device, or calls back.
//
// Tensors are dense and collapsed to [outer, channels, inner]; inner = 1 is channels-last. What is not dense in such an
// order is brought into it by `copy`. outer * channels * inner may exceed 2^31.
// An address is a plain number: a device address for syncbn_cuda_*, a host address for syncbn_cpu_*; 0 is "absent"
// where that is allowed. All addresses must be aligned to their element; 16-byte alignment of tensors is fast.
//
// "dtype" is that of x, y, dy, dx, residual and dresidual; "parameter" is float64 for float64 tensors and float32 for
// all others: gamma, beta, their gradients, the moving statistics, adjust_scale and adjust_bias. 16-bit tensors are
// computed with in float32 and rounded once, to nearest even.
//
// rows is a float64 buffer [world_size][row]. A replica fills its own row and zeros the others. Since x + 0 is exact, a
// sum over the replicas leaves every replica with the row of every other, bit for bit, whatever the order of the sum.
//   forward row   [signature, count, mean[channels], m2[channels]]          length 2 + 2 * channels
//   with channel_counts     [signature, 0, mean[channels], m2[channels], count[channels]]     length 2 + 3 * channels
//   backward row  [signature, sum_dy[channels], sum_dy_xhat[channels]]      length 1 + 2 * channels
// A replica without elements (outer = 0 or inner = 0) sends zeros after its signature.
//
// The signature says which step of which layer the row belongs to. Where the rows of a step carry different signatures,
// the replicas called different things: the kernels then leave the state alone and report it through syncbn_control.
// It is neither NaN nor 0: zeros are what a row holds whose replica did not come.
//
// A mask says which elements count in the statistics: that of [o, c, i] is the byte at
// mask + o * mask_outer_stride + c * mask_channel_stride + i * mask_inner_stride, 0: it does not. What does not count
// is normalized all the same, but its value reaches nothing else, even if it is NaN. Where the number of elements that
// count may differ between channels, channel_counts must be 1, on all replicas alike.
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
#define SYNCBN_ABI_VERSION 2

// Most dimensions of a copy.
#define SYNCBN_MAX_RANK 16

enum syncbn_status {
  SYNCBN_OK = 0,
  SYNCBN_INVALID_ARGUMENT = 1,  // an argument is outside its documented range
  SYNCBN_UNSUPPORTED = 2,       // a documented value that this library cannot compute
  SYNCBN_OUT_OF_MEMORY = 3,     // host memory or threads
  SYNCBN_DEVICE_ERROR = 4       // the device's runtime refused a launch; the text holds its error
};

enum syncbn_dtype { SYNCBN_FLOAT32 = 0, SYNCBN_FLOAT16 = 1, SYNCBN_BFLOAT16 = 2, SYNCBN_FLOAT64 = 3 };

// Whose mean and variance normalize.
enum syncbn_statistics {
  SYNCBN_MOVING = 0,  // inference: the moving ones, which are then only read
  SYNCBN_BATCH = 1,   // training: those of all ranks' rows; the state takes a step
  SYNCBN_SAVED = 2    // recomputation: those that an earlier normalize left in `saved`; nothing else changes
};

typedef uint64_t syncbn_address;

// One per replica, in memory that the host and the device both see; zero at first. Written by both sides with
// system-wide visibility, only ever from 0 to something else. Where either is not 0, no step changes the state.
typedef struct syncbn_control {
  uint32_t aborted;  // host -> kernels: not 0: the step's collective was given up, its rows are garbage, change nothing
  uint32_t mismatch;  // kernels -> host: not 0: 1 + the first rank whose signature differs; written after the two below
  double expected;    // the signature of this replica in that step
  double found;       // the signature of that rank
} syncbn_control;

// Per channel: count, mean and sum of squared deviations (M2) of this replica's share.
typedef struct syncbn_stats_args {
  uint32_t struct_size;       // sizeof(syncbn_stats_args)
  int32_t dtype;              // of x
  int64_t outer;              // >= 0
  int64_t channels;           // >= 1
  int64_t inner;              // >= 0
  int32_t world_size;         // >= 1
  int32_t rank;               // 0 .. world_size - 1
  double signature;           // neither NaN nor 0
  syncbn_address x;           // in   [outer, channels, inner]
  syncbn_address rows;        // out  float64 [world_size][forward row]
  syncbn_address workspace;   // syncbn_*_workspace_bytes(channels), zeroed once by the caller before its first use
  syncbn_address stream;      // cudaStream_t; on the CPU a syncbn_cpu_pool_create()d pool, 0: the calling thread alone
  syncbn_address mask;        // in   uint8; 0: every element counts
  int64_t mask_outer_stride;  // in bytes, >= 0; as the two below
  int64_t mask_channel_stride;
  int64_t mask_inner_stride;
  int32_t channel_counts;  // 1: the row has a count for each channel
} syncbn_stats_args;

// v = xhat * gamma + beta + residual, xhat = (x - mean) / sigma, sigma = sqrt(variance + epsilon); y = v, or with relu
// max(v, 0), where NaN stays NaN.
//
// With renorm (SYNCBN_BATCH, and SYNCBN_SAVED of such a forward) xhat * r + d takes xhat's place, with the state before
// this step: limit = max(renorm_stddev, sqrt(epsilon)), r = sigma / limit, d = (mean - renorm_mean) / limit; then r =
// max(r, r_min), r = min(r, r_max), d = max(d, -d_max), d = min(d, d_max), in this order. r and d are constants to the
// gradient. With adjustment (xhat * r + d) * adjust_scale + adjust_bias takes its place in turn.
//
// SYNCBN_BATCH, if the step is valid: each channel of which an element of some rank counts takes a step, in which a
// moving value becomes m + (b - m) * decay, computed in float64 and rounded once:
//   moving_mean towards the mean; moving_variance towards the variance (see unbiased);
//   with renorm: renorm_mean towards the mean and renorm_stddev towards sigma, both with renorm_decay; moving_stddev
//   towards sigma with decay; and moving_variance = max(moving_stddev^2 - epsilon, 0) instead of its step.
// A channel of which no element counts is normalized with mean 0 and variance 0, and keeps its state. `updates` goes up
// by 1 if any channel took a step.
typedef struct syncbn_normalize_args {
  uint32_t struct_size;            // sizeof(syncbn_normalize_args)
  int32_t dtype;                   // of x, y and residual
  int64_t outer;                   // >= 0
  int64_t channels;                // >= 1
  int64_t inner;                   // >= 0
  int32_t world_size;              // >= 1
  int32_t statistics;              // a syncbn_statistics; what is said of "batch" below is for SYNCBN_BATCH alone
  double signature;                // batch: what every row must carry
  double epsilon;                  // added to the variance; finite, >= 0
  double decay;                    // batch, finite: 1 - Keras' momentum
  syncbn_address x;                // in   [outer, channels, inner]
  syncbn_address y;                // out  the same shape; may be x or residual
  syncbn_address gamma;            // in   [channels]; 0: all ones
  syncbn_address beta;             // in   [channels]; 0: all zeros
  syncbn_address rows;             // in   batch: float64 [world_size][forward row] after the all-reduce
  syncbn_address moving_mean;      // batch: in/out, moving: in   [channels]
  syncbn_address moving_variance;  // batch: in/out, moving: in   [channels]
  syncbn_address saved;            // out (SYNCBN_SAVED: in)  float64 [5][channels]: count (0 in inference), mean,
                                   // 1 / sigma, r, d (1 and 0 without renorm); 0: not wanted
  syncbn_address control;          // batch: the replica's syncbn_control
  syncbn_address workspace;        // as in syncbn_stats_args
  syncbn_address stream;           // as in syncbn_stats_args
  int32_t channel_counts;          // batch: as in syncbn_stats_args
  int32_t relu;                    // 1: y = max(v, 0)
  syncbn_address residual;         // in   the shape of x; 0: none
  syncbn_address relu_mask;        // out  uint8 [outer, channels, inner]: 1 where v > 0; relu only; 0: not wanted
  syncbn_address adjust_scale;     // in   parameter [outer, channels, inner]; this and the next: both or none
  syncbn_address adjust_bias;      // in   the same
  int32_t renorm;                  // batch: 1: batch renormalization
  int32_t unbiased;                // batch, no renorm: 1: moving_variance steps towards variance * n / (n - 1), n > 1
  int32_t cumulative;              // batch: 1: 1 / (updates + 1) takes the place of decay, an average of all steps
  int32_t reserved;                // 0
  double renorm_decay;             // batch, renorm: finite: 1 - Keras' renorm_momentum
  double r_min;                    // batch, renorm: not NaN; -infinity: no limit
  double r_max;                    // batch, renorm: not NaN; infinity: no limit
  double d_max;                    // batch, renorm: not NaN; infinity: no limit
  syncbn_address moving_stddev;    // in/out batch, renorm: [channels]
  syncbn_address renorm_mean;      // in/out batch, renorm: [channels]
  syncbn_address renorm_stddev;    // in/out batch, renorm: [channels]
  syncbn_address updates;          // in/out batch: int64 [1], steps that changed the state; 0: not wanted
} syncbn_normalize_args;

// Per channel, of this replica's share: sum of A * g and sum of A * g * xhat. g is dy, behind a ReLU 0 where v was not
// above 0; A is adjust_scale, or 1. beta_grad is the sum of g, gamma_grad that of g * (the factor of gamma in v).
// An element whose mask byte is 0 and whose dy is 0 adds nothing, whatever its x.
typedef struct syncbn_backward_reduce_args {
  uint32_t struct_size;       // sizeof(syncbn_backward_reduce_args)
  int32_t dtype;              // of x, dy and dresidual
  int64_t outer;              // >= 0
  int64_t channels;           // >= 1
  int64_t inner;              // >= 0
  int32_t world_size;         // >= 1
  int32_t rank;               // 0 .. world_size - 1
  double signature;           // neither NaN nor 0
  syncbn_address x;           // in   [outer, channels, inner], as in forward
  syncbn_address dy;          // in   the same shape
  syncbn_address saved;       // in   what normalize wrote
  syncbn_address rows;        // out  float64 [world_size][backward row]; 0 after an inference forward: nothing to
                              // reduce
  syncbn_address gamma_grad;  // out  [channels], this replica's share, overwritten; 0: not wanted
  syncbn_address beta_grad;   // out  [channels], this replica's share, overwritten; 0: not wanted
  syncbn_address workspace;   // as in syncbn_stats_args
  syncbn_address stream;      // as in syncbn_stats_args
  syncbn_address mask;        // in   as in syncbn_stats_args
  int64_t mask_outer_stride;
  int64_t mask_channel_stride;
  int64_t mask_inner_stride;
  syncbn_address gamma;         // in   relu without relu_mask: as in forward, to compute v again; else unused
  syncbn_address beta;          // in   the same
  syncbn_address relu_mask;     // in   relu: what normalize wrote; 0: v is computed again, which needs no residual
  syncbn_address dresidual;     // out  g, the shape of dy; may be dy; 0: not wanted
  syncbn_address adjust_scale;  // in   as in forward
  syncbn_address adjust_bias;   // in   as in forward
  int32_t relu;                 // 1: there was a ReLU
  int32_t reserved;             // 0
} syncbn_backward_reduce_args;

// dx = gamma * r / sigma * (A * g - s / n - xhat * t / n), s and t the sums of A * g and A * g * xhat over all rows, n
// the count; after an inference forward, and where the mask byte is 0, dx = gamma * r / sigma * A * g. Where n is 0,
// s / n and t / n are 0.
typedef struct syncbn_backward_input_args {
  uint32_t struct_size;    // sizeof(syncbn_backward_input_args)
  int32_t dtype;           // of x, dy and dx
  int64_t outer;           // >= 0
  int64_t channels;        // >= 1
  int64_t inner;           // >= 0
  int32_t world_size;      // >= 1
  int32_t training;        // 1: the forward was SYNCBN_BATCH, 0: SYNCBN_MOVING
  double signature;        // training: what every row must carry
  syncbn_address x;        // in   [outer, channels, inner], as in forward; inference without relu does not read it
  syncbn_address dy;       // in   the same shape; behind a ReLU with residual: dresidual, and relu = 0
  syncbn_address dx;       // out  the same shape; may be dy
  syncbn_address gamma;    // in   [channels]; 0: all ones
  syncbn_address saved;    // in   what normalize wrote
  syncbn_address rows;     // in   training: float64 [world_size][backward row] after the all-reduce
  syncbn_address control;  // training: the replica's syncbn_control
  syncbn_address stream;   // as in syncbn_stats_args
  syncbn_address beta;     // in   relu: as in forward, to compute v again
  syncbn_address mask;     // in   as in syncbn_stats_args
  int64_t mask_outer_stride;
  int64_t mask_channel_stride;
  int64_t mask_inner_stride;
  syncbn_address adjust_scale;  // in   as in forward
  syncbn_address adjust_bias;   // in   as in forward
  int32_t relu;                 // 1: there was a ReLU, and no residual
  int32_t reserved;             // 0
} syncbn_backward_input_args;

// destination[i * destination_strides] = source[i * source_strides] for every index i within shape. Two tensors do not
// overlap. A source stride of 0 repeats; two indices must not name one destination.
typedef struct syncbn_copy_args {
  uint32_t struct_size;                          // sizeof(syncbn_copy_args)
  int32_t element_size;                          // in bytes: 1, 2, 4 or 8
  int32_t rank;                                  // 0 .. SYNCBN_MAX_RANK
  int32_t reserved;                              // 0
  int64_t shape[SYNCBN_MAX_RANK];                // >= 0
  int64_t source_strides[SYNCBN_MAX_RANK];       // in elements, >= 0
  int64_t destination_strides[SYNCBN_MAX_RANK];  // in elements, >= 0
  syncbn_address source;                         // in
  syncbn_address destination;                    // out
  syncbn_address stream;                         // as in syncbn_stats_args
} syncbn_copy_args;

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
int32_t syncbn_cpu_copy(const syncbn_copy_args *args);
// A whole direction of a training step, of all replicas of one process: the first operation of each, the exchange of
// their rows, the second operation of each; the same bits. Of replica r, the addresses of its two argument structs are
// at [r]; its rank is r, world_size is replicas, both have one rows, and all share one pool.
int32_t syncbn_cpu_forward(int32_t replicas, const syncbn_address *stats, const syncbn_address *normalize);
int32_t syncbn_cpu_backward(int32_t replicas, const syncbn_address *reduce, const syncbn_address *input);

// The same for the current CUDA device: kernels are enqueued on args->stream, which must belong to it.
int32_t syncbn_cuda_abi_version(void);
const char *syncbn_cuda_build_info(void);
const char *syncbn_cuda_last_error(void);
int64_t syncbn_cuda_workspace_bytes(int64_t channels);
int32_t syncbn_cuda_stats(const syncbn_stats_args *args);
int32_t syncbn_cuda_normalize(const syncbn_normalize_args *args);
int32_t syncbn_cuda_backward_reduce(const syncbn_backward_reduce_args *args);
int32_t syncbn_cuda_backward_input(const syncbn_backward_input_args *args);
int32_t syncbn_cuda_copy(const syncbn_copy_args *args);

// The two halves of a step of a replica that is alone, world_size 1, so that nothing comes between them: the same bits.
// In one launch, which reads x (backward: x and dy) from memory once and keeps it in registers and shared memory, if
// *_on_chip says how many bytes that takes; else, where it says 0, in the two launches. It says 0 for what the current
// device does not hold, a mask, an adjustment, float64, and tensors that are not aligned. The arguments of the halves
// agree with each other. A launch in which blocks wait for blocks is cooperative; it can be captured into a graph.
// forward: statistics is SYNCBN_BATCH. backward: training is 1, and dy of the second half is the first's dy, or
// dresidual.
int32_t syncbn_cuda_forward_on_chip(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize,
                                    int64_t *bytes);
int32_t syncbn_cuda_forward(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize);
int32_t syncbn_cuda_backward_on_chip(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input,
                                     int64_t *bytes);
int32_t syncbn_cuda_backward(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input);

#ifdef __cplusplus
}
#endif

#endif
