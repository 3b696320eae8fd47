// A fingerprint of everything that the CPU library computes, to compare pools, instruction sets and processes with.
#ifndef SYNCBN_TEST_CPU_DIGEST_H
#define SYNCBN_TEST_CPU_DIGEST_H

#include <stdint.h>

#include "syncbn.h"

namespace test {

// Of forward and backward over shapes on every path of the kernels, computed with this pool (0: the calling thread).
uint64_t digest(syncbn_address pool);

// Of one shape: outputs of all four operations.
uint64_t digest(syncbn_address pool, int64_t outer, int64_t channels);

}  // namespace test

#endif
