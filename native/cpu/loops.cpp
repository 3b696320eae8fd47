#include "loops.h"

#include <stdlib.h>
#include <string.h>

namespace syncbn::cpu {
namespace {

bool limited_to(const char *name) {
  const char *limit = getenv("SYNCBN_CPU_ISA");
  return limit != nullptr && strcmp(limit, name) == 0;
}

const Loops &choose() {
#if defined(__x86_64__)
  const bool avx2 = !limited_to(kBaselineLoops.name) && __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && !limited_to(kAvx2Loops.name) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    return kAvx512Loops;
  }
  if (avx2) return kAvx2Loops;
#endif
  return kBaselineLoops;
}

}  // namespace

#if defined(__x86_64__)
const bool kBfloat16Instruction = __builtin_cpu_supports("avx512bf16") && !limited_to(kAvx512Loops.name);
#endif

const Loops &loops() {
  static const Loops &chosen = choose();
  return chosen;
}

}  // namespace syncbn::cpu
