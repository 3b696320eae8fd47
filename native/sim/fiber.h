// How does one OS thread run many device threads? As fibers: stacks of their own, switched by hand (10 ns; ucontext
// takes 250 ns, a system call each time).
#ifndef SYNCBN_SIM_FIBER_H
#define SYNCBN_SIM_FIBER_H

#include <stddef.h>

#if !defined(__x86_64__) || defined(SYNCBN_SIM_UCONTEXT)
#undef SYNCBN_SIM_UCONTEXT
#define SYNCBN_SIM_UCONTEXT 1
#include <ucontext.h>
#endif

namespace syncbn::sim {

// Where an execution stands: a fiber's, or that of the OS thread itself.
struct Context {
#ifdef SYNCBN_SIM_UCONTEXT
  ucontext_t registers;
#else
  void *stack_pointer = nullptr;
#endif
  // The stack's lowest address and size, and what AddressSanitizer keeps for it.
  void *stack = nullptr;
  size_t stack_size = 0;
  void *fake_stack = nullptr;
};

// Prepares `context` to call `entry` on the given stack; entry begins with entered() and never returns.
void prepare(Context &context, void *stack, size_t size, void (*entry)());
void entered();
// Continues `to`. Returns when something switches to `from`; where `from` is finished it never does.
void transfer(Context &from, Context &to, bool finished = false);
// Fills in the stack of the calling OS thread.
void describe_thread(Context &context);

// A reservation of `count` stacks with an inaccessible page below each.
class Stacks {
 public:
  Stacks(size_t count, size_t size);
  ~Stacks();
  Stacks(const Stacks &) = delete;
  Stacks &operator=(const Stacks &) = delete;
  void *at(size_t i) const;
  size_t size() const { return size_; }
  // Makes the stacks fit for new fibers after some were left in the middle of a function.
  void forget_frames();

 private:
  char *base_;
  size_t count_, size_, stride_;
};

}  // namespace syncbn::sim

#endif
