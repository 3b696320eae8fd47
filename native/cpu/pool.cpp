#include "pool.h"

#include <cfenv>

namespace syncbn::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;
// About 20 to 50 microseconds: longer than the gap between the two passes of a layer, far shorter than a time slice.
constexpr int kSpins = 1000;

uint64_t generation(uint64_t state) { return state >> 32; }

// The pool whose worker this thread is.
thread_local const Pool *pool_of_worker = nullptr;

}  // namespace

bool gives_way() {
  const Pool *pool = pool_of_worker;
  if (!pool) return false;
  const uint64_t inside = pool->state_.load(std::memory_order_relaxed) & kInside;
  const int callers = pool->callers_.load(std::memory_order_relaxed);
  return callers + static_cast<int64_t>(inside) > static_cast<int64_t>(pool->workers_.size()) + 1;
}

Pool::Pool(int threads) {
  try {
    workers_.reserve(static_cast<size_t>(threads - 1));
    for (int i = 1; i < threads; ++i) workers_.emplace_back(&Pool::work, this);
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_.store(true, std::memory_order_relaxed);
    state_.fetch_add(uint64_t{1} << 32, std::memory_order_release);  // ends the spinning too
  }
  wake_.notify_all();
  for (std::thread &worker : workers_) worker.join();
}

void Pool::run(void (*body)(void *), void *context) {
  callers_.fetch_add(1, std::memory_order_relaxed);
  if (busy_.exchange(true, std::memory_order_acquire)) {
    body(context);
  } else {
    share_with_workers(body, context);
    busy_.store(false, std::memory_order_release);
  }
  callers_.fetch_sub(1, std::memory_order_relaxed);
}

void Pool::share_with_workers(void (*body)(void *), void *context) {
  body_ = body;
  context_ = context;
  {
    // Under the mutex, so that no worker falls asleep between its last look at the state and this store.
    std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t next = generation(state_.load(std::memory_order_relaxed)) + 1;
    state_.store(next << 32 | kOpen, std::memory_order_release);
  }
  wake_.notify_all();

  body(context);

  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  const auto finished = [this] { return (state_.load(std::memory_order_acquire) & kInside) == 0; };
  for (int i = 0; i < kSpins && !finished(); ++i) pause();
  if (!finished()) {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, finished);
  }
}

// Returns the first state seen whose generation is another than the last.
uint64_t Pool::await_next(uint64_t last_generation) {
  uint64_t state = 0;
  const auto changed = [&] {
    state = state_.load(std::memory_order_acquire);
    return generation(state) != last_generation;
  };
  for (int i = 0; i < kSpins; ++i) {
    if (changed()) return state;
    pause();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, changed);
  return state;
}

void Pool::work() {
  // Inherited from whoever created the pool, who may have set another rounding or flushed denormals.
  std::fesetenv(FE_DFL_ENV);
  pool_of_worker = this;
  for (uint64_t last_generation = 0;;) {
    uint64_t state = await_next(last_generation);
    last_generation = generation(state);
    if (stopping_.load(std::memory_order_relaxed)) return;  // stored before the generation that was just seen
    bool entered = false;
    while (!entered && (state & kOpen) != 0 && generation(state) == last_generation) {
      entered = state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire);
    }
    if (!entered) continue;
    body_(context_);
    const uint64_t before = state_.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & kOpen) == 0 && (before & kInside) == 1) {
      // The mutex makes the caller either see the count or be asleep already when this arrives.
      std::lock_guard<std::mutex> lock(mutex_);
      done_.notify_one();
    }
  }
}

}  // namespace syncbn::cpu
