// The pool of the CPU library: the same bits with any number of threads, and threads that end when they should.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <cfenv>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/pool.h"
#include "cpu_digest.h"

namespace {

// Threads that may still be started before pthread_create fails; negative: no limit.
std::atomic<int> startable{-1};
std::atomic<int> started{0};

}  // namespace

// In front of the real one, for every caller in this process: exported, so that libraries find it first.
extern "C" __attribute__((visibility("default"))) int pthread_create(pthread_t *thread,
                                                                     const pthread_attr_t *attributes,
                                                                     void *(*start)(void *), void *argument) {
  using Create = int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  static const Create real = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (startable == 0) return EAGAIN;
  if (startable > 0) --startable;
  ++started;
  return real(thread, attributes, start, argument);
}

namespace test {
namespace {

// A pool for the length of a scope.
struct Pool {
  syncbn_address address = 0;

  explicit Pool(int threads) {
    const int status = syncbn_cpu_pool_create(threads, &address);
    CHECK(status == SYNCBN_OK, "pool of %d: %s", threads, syncbn_cpu_last_error());
  }
  ~Pool() { CHECK(syncbn_cpu_pool_destroy(address) == SYNCBN_OK, "%s", syncbn_cpu_last_error()); }
};

double processor_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

void sleep_ms(long ms) {
  const timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, nullptr);
}

}  // namespace

TEST(pool_size_changes_no_bit) {
  Work work;
  const uint64_t want = work.digest(0);
  for (const int threads : {1, 2, 4}) {
    const Pool pool(threads);
    for (int i = 0; i < 2; ++i) CHECK(work.digest(pool.address) == want, "%d threads give other bits", threads);
  }
}

TEST(pool_is_shared_by_concurrent_callers) {
  const Pool pool(2);
  const uint64_t want = Work({{3000, 7, 1}, {300, 257, 1}}).digest(0);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      Work work({{3000, 7, 1}, {300, 257, 1}});
      for (int round = 0; round < 5; ++round) {
        if (work.digest(pool.address) != want) failed(__FILE__, __LINE__, "a busy pool gives other bits");
      }
    });
  }
  for (std::thread &caller : callers) caller.join();
}

// A second caller has a thread of its own: with it, a pool of two is as many as it may be, and its worker goes.
TEST(worker_gives_way_to_a_second_caller) {
  struct Job {
    syncbn::cpu::Tasks tasks{100};
    std::thread::id caller;
    std::atomic<bool> two_callers{false};
    std::atomic<int> by_caller{0};
    std::atomic<int> by_worker{0};
    std::atomic<int> by_worker_beside_two_callers{0};
  } job;
  syncbn::cpu::Pool pool(2);
  std::thread first([&] {
    job.caller = std::this_thread::get_id();
    pool.run(
        [](void *context) {
          Job &job = *static_cast<Job *>(context);
          while (job.tasks.next() >= 0) {
            const bool caller = std::this_thread::get_id() == job.caller;
            ++(caller ? job.by_caller : job.by_worker);
            if (!caller && job.two_callers) ++job.by_worker_beside_two_callers;
            sleep_ms(2);
          }
        },
        &job);
  });
  while (job.by_worker == 0 && job.by_caller + job.by_worker < 100) sleep_ms(1);
  std::thread second([&] {
    pool.run(
        [](void *context) {
          Job &job = *static_cast<Job *>(context);
          job.two_callers = true;
          while (job.by_caller + job.by_worker < 100) sleep_ms(1);
        },
        &job);
  });
  first.join();
  second.join();
  CHECK(job.by_worker > 0, "the worker never came");
  CHECK(job.by_caller + job.by_worker == 100, "%d and %d tasks", job.by_caller.load(), job.by_worker.load());
  CHECK(job.by_worker_beside_two_callers <= 1, "%d tasks were the worker's", job.by_worker_beside_two_callers.load());
}

// With the pool used right before it is destroyed, and not used at all.
TEST(pool_comes_and_goes) {
  Work work({{600, 64, 1}});
  const uint64_t want = work.digest(0);
  for (int round = 0; round < 100; ++round) {
    const Pool used(3);
    const Pool unused(2);
    if (round % 10 == 0) sleep_ms(2);  // asleep, not spinning
    CHECK(work.digest(used.address) == want, "round %d gives other bits", round);
  }
}

TEST(idle_pool_uses_no_processor_time) {
  const Pool pool(4);
  Work({{600, 64, 1}}).digest(pool.address);
  sleep_ms(50);
  const double before = processor_seconds();
  sleep_ms(300);
  const double used = processor_seconds() - before;
  CHECK(used < 0.03, "%.3f s of processor time in 0.3 s", used);
}

TEST(pool_wakes_after_sleep) {
  const Pool pool(2);
  Work work({{2000, 64, 1}});
  const uint64_t want = work.digest(0);
  for (int round = 0; round < 20; ++round) {
    sleep_ms(3);
    CHECK(work.digest(pool.address) == want, "round %d gives other bits", round);
  }
}

// Processor time that the calling thread did not use is the workers'.
TEST(sleeping_workers_of_a_pool_join) {
  const Pool pool(2);
  Work work({{20000, 64, 1}});
  double workers = 0;
  for (int round = 0; round < 50 && workers < 1e-3; ++round) {
    sleep_ms(3);
    timespec mine[2];
    const double before = processor_seconds();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mine[0]);
    work.digest(pool.address);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mine[1]);
    workers += processor_seconds() - before - static_cast<double>(mine[1].tv_sec - mine[0].tv_sec) -
               static_cast<double>(mine[1].tv_nsec - mine[0].tv_nsec) * 1e-9;
  }
  CHECK(workers >= 1e-3, "the workers used %.6f s of processor time", workers);
}

TEST(pool_arguments) {
  syncbn_address pool = 77;
  for (const int threads : {0, -4, 257}) {
    CHECK(syncbn_cpu_pool_create(threads, &pool) == SYNCBN_INVALID_ARGUMENT, "%d threads were taken", threads);
    CHECK(std::string(syncbn_cpu_last_error()).find(std::to_string(threads)) != std::string::npos, "\"%s\"",
          syncbn_cpu_last_error());
  }
  CHECK(syncbn_cpu_pool_create(2, nullptr) == SYNCBN_INVALID_ARGUMENT, "a null pool was taken");
  CHECK(pool == 77, "a failure wrote the pool");
  CHECK(syncbn_cpu_pool_destroy(0) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
}

TEST(pool_starts_what_it_says) {
  for (const int threads : {1, 2, 5}) {
    const int before = started;
    const Pool pool(threads);
    CHECK(started - before == threads - 1, "a pool of %d started %d threads", threads, started - before);
  }
}

// At the first thread and after some have been started, which must end.
TEST(thread_start_failure_is_out_of_memory) {
  for (const int succeed : {0, 2}) {
    syncbn_address pool = 77;
    startable = succeed;
    const int status = syncbn_cpu_pool_create(5, &pool);
    startable = -1;
    CHECK(status == SYNCBN_OUT_OF_MEMORY, "status %d after %d threads", status, succeed);
    CHECK(std::string(syncbn_cpu_last_error()).find("5 threads") != std::string::npos, "\"%s\"",
          syncbn_cpu_last_error());
    CHECK(pool == 77, "a failure wrote the pool");
  }
}

// A caller that rounds otherwise gets the same bits, and its own rounding back.
TEST(float_environment_of_the_caller_does_not_matter) {
  Work work({{2000, 64, 1}, {40, 7, 49}});
  const uint64_t want = work.digest(0);
  const Pool pool(2);
  std::fesetround(FE_UPWARD);
  const Pool pool_of_upward_thread(2);
  const uint64_t alone = work.digest(0);
  const uint64_t shared = work.digest(pool.address);
  const uint64_t inherited = work.digest(pool_of_upward_thread.address);
  const int rounding = std::fegetround();
  std::fesetround(FE_TONEAREST);
  CHECK(rounding == FE_UPWARD, "the rounding is %#x", static_cast<unsigned>(rounding));
  CHECK(alone == want, "the calling thread gives other bits");
  CHECK(shared == want, "a pool gives other bits");
  CHECK(inherited == want, "a pool that was created under another rounding gives other bits");
}

}  // namespace test
