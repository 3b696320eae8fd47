// Barriers, warp operations, spin waits and the end of a block. See block.h.
#include "block.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void *address);
extern "C" void __tsan_release(void *address);
#endif

__attribute__((tls_model("initial-exec"))) __thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace syncbn::sim {

namespace {

constexpr size_t kDynamicShared = 256u << 10;  // more than any device has

const char *const kBarrierNames[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"};
}  // namespace

Block &Block::of_this_thread() {
  if (!thread_state.block) thread_state.block = new Block;
  return *thread_state.block;
}

void Block::release_this_thread() {
  delete thread_state.block;
  thread_state.block = nullptr;
}

Block::Block() : signal_stack_(64u << 10) {
  describe_thread(thread_);
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void *memory = mmap(nullptr, kDynamicShared + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  dynamic_shared_ = static_cast<char *>(memory);
  mprotect(dynamic_shared_ + kDynamicShared, page, PROT_NONE);
  stack_t alternate = {};
  alternate.ss_sp = signal_stack_.data();
  alternate.ss_size = signal_stack_.size();
  sigaltstack(&alternate, nullptr);
}

Block::~Block() {
  stack_t none = {};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
  munmap(dynamic_shared_, kDynamicShared + static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

void Block::arrange(unsigned threads, uint64_t shuffle) {
  if (!stacks_ || fibers_.size() < threads) {
    stacks_.reset(new Stacks(threads, settings().stack));
    fibers_.resize(threads);
  } else if (frames_left_) {
    stacks_->forget_frames();
  }
  frames_left_ = false;

  std::vector<unsigned> order(threads);
  std::iota(order.begin(), order.end(), 0u);
  if (settings().order == Order::kDescending) std::reverse(order.begin(), order.end());
  if (settings().order == Order::kRandom) {
    for (unsigned i = threads; i > 1; --i) std::swap(order[i - 1], order[(shuffle = mix(shuffle)) % i]);
  }
  for (unsigned i = 0; i < threads; ++i) {
    Fiber &fiber = fibers_[order[i]];
    fiber.rank = order[i];
    fiber.index = {fiber.rank % blockDim.x, fiber.rank / blockDim.x % blockDim.y,
                   fiber.rank / (blockDim.x * blockDim.y)};
    fiber.next = &fibers_[order[(i + 1) % threads]];
    fiber.previous = &fibers_[order[(i + threads - 1) % threads]];
    fiber.waits_in = nullptr;
    fiber.alive = true;
    fiber.fenced = false;
    fiber.last_atomic = nullptr;
    // Tops at one distance would all fall into the same few cache sets: half the speed of a switch.
    prepare(fiber.context, stacks_->at(fiber.rank), stacks_->size() - fiber.rank % 16 * 192, fiber_main);
  }
  current_ = &fibers_[order[0]];

  warps_.resize((threads + 31) / 32);
  for (size_t i = 0; i < warps_.size(); ++i) {
    const unsigned lanes = std::min(32u, threads - 32 * static_cast<unsigned>(i));
    warps_[i].alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warps_[i].arrived = warps_[i].ready = 0;
  }
}

void Block::poison_shared() {
  const Kernel &kernel = *grid_->launch.kernel;
  if (poisoned_for_ != &kernel) {
    kernel.touch();
    storage_ = thread_storage(kernel.address);
    poisoned_for_ = &kernel;
  }
  // Everything thread-local of the kernel's library is wiped. Where the simulator is linked into the same program, its
  // own state is part of that.
  const ThreadState saved_state = thread_state;
  const uint3 saved[] = {threadIdx, blockIdx, blockDim, gridDim};
  if (storage_.data) memset(storage_.data, settings().poison, storage_.size);
  thread_state = saved_state;
  threadIdx = saved[0];
  blockIdx = saved[1];
  blockDim = saved[2];
  gridDim = saved[3];
  memset(dynamic_shared_ + kDynamicShared - grid_->launch.dynamic_shared, settings().poison,
         grid_->launch.dynamic_shared);
}

void Block::run(GridRun &grid, unsigned index) {
  const Launch &launch = grid.launch;
  grid_ = &grid;
  gridDim = launch.grid;
  blockDim = launch.block;
  blockIdx = {index % gridDim.x, index / gridDim.x % gridDim.y, index / (gridDim.x * gridDim.y)};
  alive_ = launch.threads();
  arrived_ = 0;
  barrier_sum_ = 0;
  idle_ = spins_ = 0;
  poison_shared();
  arrange(alive_, draw());
  threadIdx = current_->index;
  transfer(thread_, current_->context);
  current_ = nullptr;
  grid_ = nullptr;
}

void Block::fiber_main() {
  entered();
  Block &block = *thread_state.block;
  const Launch &launch = block.grid_->launch;
  launch.kernel->call(launch.kernel->address, launch.params.data());
  block.leave();
}

void Block::resume(Fiber &fiber, bool finished) {
  Fiber &from = *current_;
  current_ = &fiber;
  threadIdx = fiber.index;
  transfer(from.context, fiber.context, finished);
}

void Block::yield() {
  if (grid_->failed.load(std::memory_order_relaxed)) abandon();
  if (current_->next != current_) resume(*current_->next, false);
  if (grid_->failed.load(std::memory_order_relaxed)) abandon();
}

// Leaves every fiber of the block where it stands, as a trap does on the device. Device code owns nothing of the host,
// so no frame needs unwinding.
void Block::abandon() {
  frames_left_ = true;
  Fiber &from = *current_;
  current_ = nullptr;
  transfer(from.context, thread_, true);
  __builtin_unreachable();
}

void Block::leave() {
  Fiber &fiber = *current_;
  fiber.alive = false;
  --alive_;
  spins_ = 0;
  progress();
  Warp &warp = warps_[fiber.rank / 32];
  warp.alive &= ~(1u << fiber.rank % 32);
  // Threads that have exited count as arrived.
  if (alive_ > 0 && arrived_ == alive_) open_barrier();
  for (uint32_t lanes = warp.arrived; lanes; lanes &= lanes - 1) {
    const uint32_t mask = warp.in[__builtin_ctz(lanes)].mask & warp.alive;
    if ((warp.arrived & mask) == mask) {
      complete(warp, mask);
      break;
    }
  }
  if (alive_ == 0) {
    current_ = nullptr;
    transfer(fiber.context, thread_, true);
  }
  fiber.previous->next = fiber.next;
  fiber.next->previous = fiber.previous;
  resume(*fiber.next, true);
}

int Block::barrier(sim_barrier_kind kind, int value, int line) {
  progress();
  if (arrived_ == 0) {
    barrier_kind_ = kind;
    barrier_line_ = line;
  } else if (kind != barrier_kind_ || line != barrier_line_) {
    fail(cudaErrorLaunchFailure, "threads of a block meet at different barriers: %s in line %d and, %s, %s in line %d",
         kBarrierNames[barrier_kind_], barrier_line_, who(*current_), kBarrierNames[kind], line);
  }
  ++arrived_;
  barrier_sum_ += value != 0;
  if (arrived_ == alive_) {
    open_barrier();
  } else {
    const unsigned long generation = barrier_generation_;
    wait(kBarrierNames[kind], line, [&] { return barrier_generation_ != generation; });
  }
  return barrier_result_;
}

void Block::open_barrier() {
  barrier_result_ = barrier_kind_ == SIM_BARRIER_COUNT ? barrier_sum_
                    : barrier_kind_ == SIM_BARRIER_AND ? barrier_sum_ == static_cast<int>(arrived_)
                                                       : barrier_sum_ != 0;
  arrived_ = 0;
  barrier_sum_ = 0;
  ++barrier_generation_;
  spins_ = 0;
  progress();
}

void Block::grid_barrier(int line) {
  if (!grid_->launch.cooperative) fail(cudaErrorLaunchFailure, "grid_sync in a launch that is not cooperative");
  // All threads of the block meet, then its last one meets the other blocks' while nobody here can run.
  progress();
  if (arrived_ + 1 == alive_ && !grid_->meet()) abandon();
  barrier(SIM_BARRIER, 0, line);
}

void Block::spin(const void *flag) {
  progress();
  const auto now = std::chrono::steady_clock::now();
  if (spins_ == 0) spinning_since_ = now;
  if (++spins_ % 64 == 0) {
    sched_yield();
    if (now - spinning_since_ > std::chrono::milliseconds(settings().timeout_ms)) {
      fail(cudaErrorLaunchTimeout, "%s has read the flag at %p for %d ms", who(*current_), flag, settings().timeout_ms);
    }
  }
  yield();
}

void Block::fail(cudaError_t error, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure_, sizeof failure_, format, arguments);
  va_end(arguments);
  grid_->fail(error, failure_);
  abandon();
}

void *Block::dynamic_shared() { return dynamic_shared_ + kDynamicShared - grid_->launch.dynamic_shared; }

bool Block::owns(const void *address) const {
  const char *at = static_cast<const char *>(address);
  const char *low = static_cast<const char *>(stacks_->at(0)) - sysconf(_SC_PAGESIZE);
  const char *high = static_cast<const char *>(stacks_->at(fibers_.size() - 1)) + stacks_->size();
  return at >= low && at < high;
}

void *Block::stack_top() const {
  return static_cast<char *>(current_->context.stack) + current_->context.stack_size - 256;
}

// ThreadSanitizer does not know fences. C++ defines them by the atomics around them: a fence makes earlier writes
// visible with the thread's later atomics, and makes visible what the writer of the value that its last atomic read had
// released.
void Block::before_atomic(const void *address) {
#ifdef __SANITIZE_THREAD__
  if (current_->fenced) __tsan_release(const_cast<void *>(address));
#endif
  current_->last_atomic = address;
}

void Block::fence() {
  current_->fenced = true;
#ifdef __SANITIZE_THREAD__
  if (current_->last_atomic) __tsan_acquire(const_cast<void *>(current_->last_atomic));
#endif
}

const char *Block::who(const Fiber &fiber) {
  snprintf(who_, sizeof who_, "thread (%u,%u,%u) of block (%u,%u,%u) of %s", fiber.index.x, fiber.index.y,
           fiber.index.z, blockIdx.x, blockIdx.y, blockIdx.z, grid_->launch.kernel->name.c_str());
  return who_;
}

// One clause for each place where threads wait: how many, and the first of them.
const char *Block::describe_deadlock() {
  std::map<std::pair<std::string, int>, std::pair<unsigned, const Fiber *>> places;
  for (unsigned i = 0; i < grid_->launch.threads(); ++i) {
    const Fiber &fiber = fibers_[i];
    if (!fiber.alive || !fiber.waits_in) continue;
    auto &place = places[{fiber.waits_in, fiber.line}];
    if (place.first++ == 0) place.second = &fiber;
  }
  std::string text = "deadlock";
  for (const auto &place : places) {
    text += format("; %u threads at %s in line %d, the first is %s", place.second.first, place.first.first.c_str(),
                   place.first.second, who(*place.second.second));
  }
  snprintf(deadlock_, sizeof deadlock_, "%s", text.c_str());
  return deadlock_;
}

}  // namespace syncbn::sim

using syncbn::sim::thread_state;

// Device code runs only inside a block; a host thread that calls these has nobody to meet.
extern "C" {
int sim_barrier(sim_barrier_kind kind, int value, int line) {
  return thread_state.block ? thread_state.block->barrier(kind, value, line) : value != 0;
}
uint64_t sim_warp(sim_warp_operation operation, uint32_t mask, uint64_t value, int operand, int width, int line) {
  return thread_state.block ? thread_state.block->warp(operation, mask, value, operand, width, line) : value;
}
void sim_grid_barrier(int line) {
  if (thread_state.block) thread_state.block->grid_barrier(line);
}
void sim_spin(const void *flag) {
  if (thread_state.block) thread_state.block->spin(flag);
}
void sim_before_atomic(const void *address) {
  if (thread_state.block) thread_state.block->before_atomic(address);
}
void sim_fence() {
  if (thread_state.block) thread_state.block->fence();
}
void *sim_dynamic_shared() { return thread_state.block ? thread_state.block->dynamic_shared() : nullptr; }
}
