// A fingerprint of everything that the CPU library computes, to compare pools, instruction sets and processes with.
#ifndef SYNCBN_TEST_CPU_DIGEST_H
#define SYNCBN_TEST_CPU_DIGEST_H

#include <stdint.h>

#include <array>
#include <memory>
#include <vector>

#include "step.h"

namespace test {

// Forward and backward over some shapes, each with a dtype and options of its own.
class Work {
 public:
  // {outer, channels, inner}.
  explicit Work(const std::vector<std::array<int64_t, 3>> &shapes);
  // Shapes on every path of the kernels.
  Work();

  // Of all outputs, computed with this pool (0: the calling thread). Nothing is rounded but by the library.
  uint64_t digest(syncbn_address pool);

 private:
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace test

#endif
