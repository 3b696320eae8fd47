// What every entry point starts with: the thread's error, the floating-point environment, addresses as pointers.
#ifndef SYNCBN_CPU_CALL_H
#define SYNCBN_CPU_CALL_H

#include <cfenv>

#include "common/check.h"
#include "element.h"
#include "syncbn.h"

namespace syncbn::cpu {

// The text behind syncbn_cpu_last_error of this thread.
Error &thread_error();

// The default environment while a call lasts, the caller's afterwards: a thread that flushes denormals or rounds
// otherwise gets the same bits as every other.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&callers_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment &) = delete;
  DefaultFloatEnvironment &operator=(const DefaultFloatEnvironment &) = delete;

 private:
  std::fenv_t callers_;
};

template <typename T>
T *pointer(syncbn_address address) {
  return reinterpret_cast<T *>(address);
}

// Calls f(an element of the type).
template <typename F>
void with_element(int32_t dtype, const F &f) {
  switch (dtype) {
    case SYNCBN_FLOAT32:
      return f(float{});
    case SYNCBN_FLOAT16:
      return f(Half{});
    case SYNCBN_BFLOAT16:
      return f(Bfloat16{});
    default:
      return f(double{});
  }
}

}  // namespace syncbn::cpu

#endif
