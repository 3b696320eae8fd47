// Who computes? A fixed pool of threads that share one call's tasks.
//
// The result of a call never depends on the pool: tasks are cut by shape, and which thread takes which is irrelevant.
// Waiting workers spin for some tens of microseconds, then sleep: an idle pool uses no processor time.
#ifndef SYNCBN_CPU_POOL_H
#define SYNCBN_CPU_POOL_H

#include <stdint.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "syncbn.h"

namespace syncbn::cpu {

// What a thread does that waits for another for less than a microsecond or so.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Whether the calling thread is a worker of a pool that as many other threads use by now as it has threads.
bool gives_way();

// Hands out begin .. end - 1, each once, in increasing order to each thread.
class Tasks {
 public:
  explicit Tasks(int64_t end) : Tasks(0, end) {}
  Tasks(int64_t begin, int64_t end) : end_(end), next_(begin) {}

  // The next task, or -1: there is none, or none for this thread.
  int64_t next() {
    if (gives_way()) return -1;
    const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
    return task < end_ ? task : -1;
  }

 private:
  const int64_t end_;
  std::atomic<int64_t> next_;
};

class Pool {
 public:
  // Starts threads - 1 workers. Throws std::system_error or std::bad_alloc, with no thread left behind.
  explicit Pool(int threads);
  // Ends and joins the workers.
  ~Pool();
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;

  // Calls body(context) on the calling thread and on every worker that arrives before the caller's own call returns,
  // and returns when all of these have. On the caller alone if another thread is in run(). Workers then give way: as
  // many callers as the pool has threads, such as one for each replica, have the processors to themselves.
  void run(void (*body)(void *), void *context);

 private:
  friend bool gives_way();

  void share_with_workers(void (*body)(void *), void *context);
  void work();
  uint64_t await_next(uint64_t last_generation);
  void stop();

  // One word decides who may enter a job, so that a worker that comes late can never touch a job that has ended:
  // generation << 32 | open << 31 | workers inside.
  std::atomic<uint64_t> state_{0};
  std::atomic<bool> busy_{false};
  std::atomic<int> callers_{0};
  void (*body_)(void *) = nullptr;  // written before the job opens
  void *context_ = nullptr;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
};

// Calls body(Tasks &) on the calling thread and on those of the pool; together they take `tasks` tasks.
// pool: an address that syncbn_cpu_pool_create wrote, or 0: the calling thread alone.
template <typename Body>
void share(syncbn_address pool, int64_t tasks, const Body &body) {
  struct Job {
    Tasks tasks;
    const Body *body;
  } job{Tasks(tasks), &body};
  const auto call = [](void *context) {
    auto *job = static_cast<Job *>(context);
    (*job->body)(job->tasks);
  };
  if (pool == 0 || tasks <= 1) {
    call(&job);
  } else {
    reinterpret_cast<Pool *>(pool)->run(call, &job);
  }
}

}  // namespace syncbn::cpu

#endif
