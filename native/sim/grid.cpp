// How do a grid's blocks get onto OS threads, and what becomes of a kernel that touches memory it must not?
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include <deque>
#include <numeric>

#include "block.h"
#include "memory.h"

namespace syncbn::sim {

// ---- helpers of a stream

struct Crew::Shared {
  std::mutex mutex;
  std::condition_variable wake, done;
  const std::function<void()> *work = nullptr;
  unsigned wanted = 0;   // helpers that still have to take the work up
  unsigned running = 0;  // helpers that have not finished it
  unsigned helpers = 0;
  bool closing = false;
};

Crew::Crew() : shared_(std::make_shared<Shared>()) {}

Crew::~Crew() {
  std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->closing = true;
  shared_->wake.notify_all();
}

void Crew::run(unsigned count, const std::function<void()> &work) {
  if (count > 1) {
    std::unique_lock<std::mutex> lock(shared_->mutex);
    for (; shared_->helpers < count - 1; ++shared_->helpers) {
      start_thread([shared = shared_] {
        std::unique_lock<std::mutex> lock(shared->mutex);
        for (;;) {
          shared->wake.wait(lock, [&] { return shared->closing || shared->wanted > 0; });
          if (shared->wanted == 0) break;
          --shared->wanted;
          const std::function<void()> &work = *shared->work;
          lock.unlock();
          work();
          lock.lock();
          if (--shared->running == 0) shared->done.notify_all();
        }
        Block::release_this_thread();
      });
    }
    shared_->work = &work;
    shared_->wanted = shared_->running = count - 1;
    shared_->wake.notify_all();
  }
  work();
  if (count > 1) {
    std::unique_lock<std::mutex> lock(shared_->mutex);
    shared_->done.wait(lock, [&] { return shared_->running == 0; });
  }
}

// ---- one execution of a launch

void GridRun::fail(cudaError_t error, const char *text) {
  // Later ones of the same grid say nothing: the device may have been revived meanwhile.
  if (failed.exchange(true)) return;
  fail_device(launch.device, error, text);
  std::lock_guard<std::mutex> lock(mutex);
  opened.notify_all();
}

bool GridRun::meet() {
  std::unique_lock<std::mutex> lock(mutex);
  const unsigned long mine = generation;
  if (++arrived == launch.blocks()) {
    arrived = 0;
    ++generation;
    opened.notify_all();
    return !failed;
  }
  if (finished == 0) opened.wait(lock, [&] { return generation != mine || failed || finished > 0; });
  if (generation == mine && !failed) {
    lock.unlock();
    fail(cudaErrorLaunchFailure, "deadlock: blocks wait at grid_sync for a block that has ended");
  }
  return !failed;
}

void GridRun::finish_block() {
  std::lock_guard<std::mutex> lock(mutex);
  ++finished;
  opened.notify_all();
}

// ---- faults of device code

namespace {

struct sigaction previous_segv, previous_bus;

// Runs on the faulting device thread's own stack, as if called from the instruction that faulted.
void die_of_fault() {
  Block &block = *thread_state.block;
  const void *address = block.fault_address;
  if (block.owns(address)) {
    block.fail(cudaErrorIllegalAddress, "a device thread's stack overflowed (SYNCBN_SIM_STACK)");
  }
  char text[256];
  describe_address(address, text, sizeof text);
  block.fail(cudaErrorIllegalAddress, "%s", text);
}

// A fault inside device code poisons the device, as on hardware; every other fault goes to whoever was there before,
// which in a JVM is the JVM.
void on_fault(int signal, siginfo_t *info, void *context) {
  Block *block = thread_state.block;
#if defined(__x86_64__)
  if (block && block->running()) {
    auto *registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    block->fault_address = info->si_addr;
    registers[REG_RIP] = reinterpret_cast<greg_t>(&die_of_fault);
    // As after a call: 8 below a multiple of 16. The frames above are dead.
    registers[REG_RSP] = static_cast<greg_t>((reinterpret_cast<uintptr_t>(block->stack_top()) & ~uintptr_t{15}) - 8);
    return;
  }
#else
  (void)block;
#endif
  const struct sigaction &previous = signal == SIGBUS ? previous_bus : previous_segv;
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    sigaction(signal, &previous, nullptr);  // the instruction faults again and the default action follows
  } else {
    previous.sa_handler(signal);
  }
}

void install_fault_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
  });
}

}  // namespace

void run_grid(const Launch &launch, Crew &crew) {
  GridRun grid(launch);
  const unsigned blocks = launch.blocks();
  install_fault_handler();
  std::vector<unsigned> order;
  if (settings().order != Order::kAscending) {
    order.resize(blocks);
    std::iota(order.rbegin(), order.rend(), 0u);
    uint64_t shuffle = draw();
    if (settings().order == Order::kRandom) {
      for (unsigned i = blocks; i > 1; --i) std::swap(order[i - 1], order[(shuffle = mix(shuffle)) % i]);
    }
  }
  const std::function<void()> work = [&] {
    Block &block = Block::of_this_thread();
    for (unsigned i; !grid.failed && (i = grid.next.fetch_add(1, std::memory_order_relaxed)) < blocks;) {
      block.run(grid, order.empty() ? i : order[i]);
      if (launch.cooperative) {
        // A block that waits holds its OS thread, so each has one of its own.
        grid.finish_block();
        break;
      }
    }
  };
  crew.run(launch.cooperative ? blocks : std::min(blocks, static_cast<unsigned>(settings().workers)), work);
}

}  // namespace syncbn::sim
