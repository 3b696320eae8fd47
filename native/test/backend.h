// What does a device do for the kernel tests? One interface, linked with the implementation of one backend.
//
// A failure of the device itself ends the program: no test can go on without it.
#ifndef SYNCBN_TEST_BACKEND_H
#define SYNCBN_TEST_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "syncbn.h"

namespace backend {

extern const char *const kName;

// How many float32 operations in a row may round a term of a sum before it is in float64. Bounds the error of a sum to
// kRoundings * 2^-24 of the sum of its terms' magnitudes.
extern const int kRoundings;

// Elements of a larger case, and which cases of a sweep run: every kSweepStride-th. A simulated device is slower by
// orders of magnitude.
extern const int64_t kMaxElements;
extern const int kSweepStride;

// Memory of the device, aligned to 256 bytes.
void *allocate(size_t bytes);
void release(void *address);
// Memory that host and device both see, zeroed.
void *allocate_shared(size_t bytes);
void release_shared(void *address);
void upload(void *device, const void *host, size_t bytes);
// After everything that was enqueued.
void download(void *host, const void *device, size_t bytes);
// Makes any access an error where the backend can; accessible again with forbidden = false.
void forbid(void *address, size_t bytes, bool forbidden);

// The stream or pool of the arguments.
syncbn_address stream();
// Waits for everything enqueued.
void synchronize();

int64_t workspace_bytes(int64_t channels);
const char *last_error();
const char *build_info();
int32_t abi_version();
int32_t stats(const syncbn_stats_args *args);
int32_t normalize(const syncbn_normalize_args *args);
int32_t backward_reduce(const syncbn_backward_reduce_args *args);
int32_t backward_input(const syncbn_backward_input_args *args);
int32_t copy(const syncbn_copy_args *args);

// Whether there are the following: a direction of a replica that is alone, in one launch where that is possible.
extern const bool kHasDirections;
int32_t forward(const syncbn_stats_args *stats, const syncbn_normalize_args *normalize);
int32_t backward(const syncbn_backward_reduce_args *reduce, const syncbn_backward_input_args *input);

}  // namespace backend

#endif
