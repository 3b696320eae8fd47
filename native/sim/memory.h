// Whose is this address?
#ifndef SYNCBN_SIM_MEMORY_H
#define SYNCBN_SIM_MEMORY_H

#include "sim.h"

namespace syncbn::sim {

enum class MemoryKind { kDevice, kHost };

struct Allocation {
  char *mapping;  // first byte of the mapping, whose first and last page are inaccessible
  size_t mapped;  // its bytes
  char *address;  // 256-byte aligned; address + size, rounded up to 256, is the last page
  size_t size;    // bytes asked for
  MemoryKind kind;
  int device;  // that it is on, or that was current
};

// The allocation that holds [pointer, pointer + size), if one does.
bool find_allocation(const void *pointer, size_t size, Allocation *found);
// The allocation that holds the first byte, however far it reaches.
bool find_start(const void *pointer, Allocation *found);
// One line for each live allocation around which something was written, which is also found when it is freed.
std::string overruns();
// For messages: which allocation the address is in, before, behind or was in.
void describe_address(const void *address, char *text, size_t capacity);

}  // namespace syncbn::sim

#endif
