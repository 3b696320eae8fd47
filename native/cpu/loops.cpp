#include "loops.h"

#include <stdlib.h>
#include <string.h>

namespace syncbn::cpu {
namespace {

const Loops &choose() {
#if defined(__x86_64__)
  const char *limit = getenv("SYNCBN_CPU_ISA");
  const bool baseline = limit != nullptr && strcmp(limit, kBaselineLoops.name) == 0;
  const bool avx2 = limit != nullptr && strcmp(limit, kAvx2Loops.name) == 0;
  if (!baseline && !avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) {
    return kAvx512Loops;
  }
  if (!baseline && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return kAvx2Loops;
#endif
  return kBaselineLoops;
}

}  // namespace

const Loops &loops() {
  static const Loops &chosen = choose();
  return chosen;
}

}  // namespace syncbn::cpu
