# The flags of the two kinds of sanitizer builds, for sources and links alike. Checks as calls, and none that finds less
# than the address sanitizer: half the time to compile.
set(SYNCBN_ADDRESS_SANITIZER -fsanitize=address,undefined -fno-sanitize-recover=all -fno-sanitize=null,object-size,vptr
  --param asan-instrumentation-with-call-threshold=0 -fno-omit-frame-pointer -g1 -O1)
set(SYNCBN_THREAD_SANITIZER -fsanitize=thread -g1 -O1)
