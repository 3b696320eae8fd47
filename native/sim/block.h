// How do the threads of one block run and meet?
//
// They are fibers of one OS thread, in a ring. A device thread runs until it has to wait, then the next in the ring
// goes on: so results depend on the order of the ring alone, which is ascending, descending or drawn from the seed for
// each block. Shared memory is thread-local storage of that OS thread.
#ifndef SYNCBN_SIM_BLOCK_H
#define SYNCBN_SIM_BLOCK_H

#include <chrono>

#include "device_runtime.h"
#include "fiber.h"
#include "launch.h"

namespace syncbn::sim {

class Block {
 public:
  // The calling OS thread's; made on first use.
  static Block &of_this_thread();
  // Ends the calling OS thread's, if it has one.
  static void release_this_thread();

  // Runs one block of the grid to its end, or to the grid's failure.
  void run(GridRun &grid, unsigned index);

  // Called by device threads. `line` is the source line of the call.
  int barrier(sim_barrier_kind kind, int value, int line);
  uint64_t warp(sim_warp_operation operation, uint32_t mask, uint64_t value, int operand, int width, int line);
  void grid_barrier(int line);
  void spin(const void *flag);
  // Ends the grid. The caller's frame is never left, so it must hold nothing to be destroyed: hence the C strings.
  [[noreturn]] void fail(cudaError_t error, const char *format, ...) __attribute__((format(printf, 3, 4)));
  void *dynamic_shared();
  void before_atomic(const void *address);
  void fence();
  // Where the running device thread is, if any: a fault may be blamed on it.
  bool owns(const void *address) const;
  bool running() const { return current_ != nullptr; }
  void *stack_top() const;
  const void *fault_address = nullptr;  // set by the signal handler

 private:
  struct Fiber {
    Context context;
    uint3 index;
    unsigned rank;  // in the block
    Fiber *next, *previous;
    const char *waits_in;  // null: runs
    int line;
    bool alive;
    // For ThreadSanitizer: has it executed a fence, and which atomic did it touch last?
    bool fenced;
    const void *last_atomic;
  };
  struct Deposit {
    uint32_t mask;
    sim_warp_operation operation;
    int line;
    int operand, width;
    uint64_t value;
  };
  // A lane deposits its part of a warp operation; the last lane of the mask to come computes the results of all.
  struct Warp {
    uint32_t alive, arrived, ready;
    Deposit in[32];
    uint64_t out[32];
  };

  Block();
  ~Block();
  static void fiber_main();
  void arrange(unsigned threads, uint64_t shuffle);
  void poison_shared();
  void leave();
  void yield();
  void resume(Fiber &fiber, bool finished);
  [[noreturn]] void abandon();
  template <typename Ready>
  void wait(const char *where, int line, Ready ready);
  void progress() { idle_ = 0; }
  void open_barrier();
  void complete(Warp &warp, uint32_t mask);
  const char *who(const Fiber &fiber);
  const char *describe_deadlock();

  Context thread_;  // where run() waits
  std::unique_ptr<Stacks> stacks_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  char *dynamic_shared_ = nullptr;  // ends at an inaccessible page
  // For the handler of a device thread that has overflowed its stack.
  std::vector<char> signal_stack_;
  bool frames_left_ = false;
  char failure_[2048], who_[256], deadlock_[1536];

  GridRun *grid_ = nullptr;
  Fiber *current_ = nullptr;
  unsigned alive_ = 0;
  unsigned idle_ = 0;  // yields of waiting threads in a row, without any progress

  unsigned arrived_ = 0;  // at the barrier
  int barrier_sum_ = 0, barrier_result_ = 0;
  sim_barrier_kind barrier_kind_ = SIM_BARRIER;
  int barrier_line_ = 0;
  unsigned long barrier_generation_ = 0;

  unsigned spins_ = 0;
  std::chrono::steady_clock::time_point spinning_since_;

  const Kernel *poisoned_for_ = nullptr;
  ThreadStorage storage_;
};

template <typename Ready>
void Block::wait(const char *where, int line, Ready ready) {
  current_->waits_in = where;
  current_->line = line;
  while (!ready()) {
    // Two rounds of the ring in which every thread waits and nothing happens.
    if (++idle_ > 2 * alive_ + 2) fail(cudaErrorLaunchFailure, "%s", describe_deadlock());
    yield();
  }
  current_->waits_in = nullptr;
}

}  // namespace syncbn::sim

#endif
