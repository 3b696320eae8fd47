// The inner loops for any processor: four floats at a time.
#define SYNCBN_LOOPS kBaselineLoops
#define SYNCBN_LOOPS_NAME "baseline"
#define SYNCBN_VECTOR_BYTES 16
#include "loops.inc"
