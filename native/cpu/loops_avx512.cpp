// The inner loops with AVX512: sixteen floats at a time.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw")
#define SYNCBN_LOOPS kAvx512Loops
#define SYNCBN_LOOPS_NAME "avx512"
#define SYNCBN_VECTOR_BYTES 64
#include "loops.inc"
#endif
