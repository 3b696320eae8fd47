// The inner loops with AVX512: sixteen floats at a time. The instruction that stores bfloat16 is used only where the
// processor has it; the compiler uses none of its own accord.
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512bf16,fma")
#define SYNCBN_LOOPS kAvx512Loops
#define SYNCBN_LOOPS_NAME "avx512"
#define SYNCBN_VECTOR_BYTES 64
#include "loops.inc"
#endif
