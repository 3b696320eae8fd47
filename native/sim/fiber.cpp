// The switch between fibers, their stacks, and what the sanitizers must be told about both.
#include "fiber.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef SYNCBN_SIM_UCONTEXT
// void syncbn_sim_switch(void **save, void *load): the callee-saved registers go on the old stack, come from the new
// one. The floating point control words are left alone: device code does not change them.
asm(R"(
.text
.globl syncbn_sim_switch
.hidden syncbn_sim_switch
.type syncbn_sim_switch, @function
syncbn_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size syncbn_sim_switch, .-syncbn_sim_switch
)");
extern "C" void syncbn_sim_switch(void **save, void *load);
#endif

namespace syncbn::sim {

void prepare(Context &context, void *stack, size_t size, void (*entry)()) {
  context.stack = stack;
  context.stack_size = size;
  context.fake_stack = nullptr;
#ifdef SYNCBN_SIM_UCONTEXT
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = size;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
#else
  // From the top: a return address of 0, which ends backtraces and leaves the alignment that the ABI wants at an entry;
  // the entry, to which the switch returns; six registers.
  void **top = reinterpret_cast<void **>((reinterpret_cast<uintptr_t>(stack) + size) & ~uintptr_t{15}) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void *>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack_pointer = top;
#endif
}

void entered() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void transfer(Context &from, Context &to, bool finished) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(finished ? nullptr : &from.fake_stack, to.stack, to.stack_size);
#else
  (void)finished;
#endif
#ifdef SYNCBN_SIM_UCONTEXT
  swapcontext(&from.registers, &to.registers);
#else
  syncbn_sim_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void describe_thread(Context &context) {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  pthread_attr_getstack(&attributes, &context.stack, &context.stack_size);
  pthread_attr_destroy(&attributes);
}

Stacks::Stacks(size_t count, size_t size) : count_(count) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  size_ = (size + page - 1) / page * page;
  stride_ = size_ + page;
  void *memory =
      mmap(nullptr, count_ * stride_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char *>(memory);
  for (size_t i = 0; i < count_; ++i) mprotect(base_ + i * stride_, page, PROT_NONE);
}

Stacks::~Stacks() { munmap(base_, count_ * stride_); }

void *Stacks::at(size_t i) const { return base_ + i * stride_ + (stride_ - size_); }

void Stacks::forget_frames() {
#ifdef __SANITIZE_ADDRESS__
  for (size_t i = 0; i < count_; ++i) __asan_unpoison_memory_region(at(i), size_);
#endif
}

}  // namespace syncbn::sim
