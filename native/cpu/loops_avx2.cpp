// The inner loops with AVX2, FMA and F16C: eight floats at a time.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define SYNCBN_LOOPS kAvx2Loops
#define SYNCBN_LOOPS_NAME "avx2"
#define SYNCBN_VECTOR_BYTES 32
#include "loops.inc"
#endif
