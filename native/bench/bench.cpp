// What is a copy, at its fastest? The yardstick of `syncbn bench`: memory copied by three kinds of stores, on threads
// that wait for each other as those of the kernels do.
//
// The functions are those of the Java class io.github.syncbn4j.cli.bench.NativeCopy. JNI's environment and class are
// not used, so that no header of Java's is needed: they are pointers, jlong is int64_t and jint int32_t.
#include <immintrin.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "pool.h"

#define SYNCBN_JAVA(name) __attribute__((visibility("default"))) Java_io_github_syncbn4j_cli_bench_NativeCopy_##name

namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kLargePage = 2 << 20;
// Pieces that a thread gets, so that one that began late does not keep the others waiting.
constexpr int64_t kPiecesOfThread = 4;

struct Copier {
  explicit Copier(int threads) : pool(threads), pieces(threads * kPiecesOfThread) {}
  syncbn::cpu::Pool pool;
  const int64_t pieces;
};

void copy_plain(char *to, const char *from, int64_t bytes) { memcpy(to, from, static_cast<size_t>(bytes)); }

// Not replaced by a call of memcpy.
__attribute__((optimize("O3,no-tree-loop-distribute-patterns"))) void copy_loop(char *__restrict to,
                                                                                const char *__restrict from,
                                                                                int64_t bytes) {
  for (int64_t i = 0; i < bytes; ++i) to[i] = from[i];
}

constexpr int64_t kLine = 64;

__attribute__((target("avx512f"))) void stream_lines_avx512(char *to, const char *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kLine) {
    _mm512_stream_si512(reinterpret_cast<__m512i *>(to + i), _mm512_loadu_si512(from + i));
  }
}

void stream_lines(char *to, const char *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kLine) {
    for (int64_t j = i; j < i + kLine; j += static_cast<int64_t>(sizeof(__m128i))) {
      _mm_stream_si128(reinterpret_cast<__m128i *>(to + j),
                       _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + j)));
    }
  }
}

// `to` is aligned to a line.
void copy_non_temporal(char *to, const char *from, int64_t bytes) {
  static const bool avx512 = __builtin_cpu_supports("avx512f") != 0;
  const int64_t whole = bytes / kLine * kLine;
  (avx512 ? stream_lines_avx512 : stream_lines)(to, from, whole);
  _mm_sfence();
  memcpy(to + whole, from + whole, static_cast<size_t>(bytes - whole));
}

using Copy = void (*)(char *, const char *, int64_t);
constexpr Copy kCopies[] = {copy_plain, copy_loop, copy_non_temporal};

}  // namespace

extern "C" {

// 0 if the threads cannot be started.
int64_t SYNCBN_JAVA(start)(void *, void *, int32_t threads) {
  try {
    return reinterpret_cast<int64_t>(new Copier(threads));
  } catch (...) {
    return 0;
  }
}

void SYNCBN_JAVA(stop)(void *, void *, int64_t copier) { delete reinterpret_cast<Copier *>(copier); }

// kind: 0 memcpy, 1 a plain loop, 2 non-temporal stores.
void SYNCBN_JAVA(copy)(void *, void *, int64_t copier, int32_t kind, int64_t to, int64_t from, int64_t bytes) {
  struct Job {
    syncbn::cpu::Tasks tasks;
    Copy copy;
    char *to;
    const char *from;
    int64_t bytes;
    int64_t piece;
  };
  auto *on = reinterpret_cast<Copier *>(copier);
  const int64_t piece = std::max(kPage, (bytes / on->pieces + kPage - 1) / kPage * kPage);
  Job job{syncbn::cpu::Tasks((bytes + piece - 1) / piece),
          kCopies[kind],
          reinterpret_cast<char *>(to),
          reinterpret_cast<const char *>(from),
          bytes,
          piece};
  on->pool.run(
      [](void *context) {
        auto &job = *static_cast<Job *>(context);
        for (int64_t task; (task = job.tasks.next()) >= 0;) {
          const int64_t at = task * job.piece;
          job.copy(job.to + at, job.from + at, std::min(job.piece, job.bytes - at));
        }
      },
      &job);
}

// Memory in large pages where the system grants them; 0 if there is none.
int64_t SYNCBN_JAVA(allocate)(void *, void *, int64_t bytes) {
  const int64_t whole = (bytes + kLargePage - 1) / kLargePage * kLargePage;
  void *memory = aligned_alloc(kLargePage, static_cast<size_t>(whole));
  if (memory != nullptr) madvise(memory, static_cast<size_t>(whole), MADV_HUGEPAGE);
  return reinterpret_cast<int64_t>(memory);
}

void SYNCBN_JAVA(free)(void *, void *, int64_t memory) { free(reinterpret_cast<void *>(memory)); }

// A peer that allocates within a call is not to pay for fresh small pages each time: freed memory stays, and libtorch
// asks for large pages. Before libtorch is loaded.
void SYNCBN_JAVA(keepFreedMemory)(void *, void *) {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  setenv("THP_MEM_ALLOC_ENABLE", "1", 0);
}

}  // extern "C"
