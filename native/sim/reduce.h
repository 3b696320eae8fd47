// How are the elements of an all-reduce combined, and in which order?
#ifndef SYNCBN_SIM_REDUCE_H
#define SYNCBN_SIM_REDUCE_H

#include <nccl.h>
#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace syncbn::sim {

// Bytes of an element; 0 for a type that is not simulated.
size_t element_size(ncclDataType_t type);
// Whether the operation is simulated: sum, minimum, maximum.
bool can_reduce(ncclRedOp_t operation);

// to[i] = parts[0][i] op parts[1][i] op ..., rounded to the type after each step, as ranks that pass partial results on
// do. The order of the parts is drawn from `seed` for each run of 64 elements.
void reduce(void *to, const std::vector<const void *> &parts, size_t count, ncclDataType_t type, ncclRedOp_t operation,
            uint64_t seed);

}  // namespace syncbn::sim

#endif
