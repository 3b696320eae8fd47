// How the CPU library cuts a tensor: every element once, at any size, by the shape alone.
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/lanes.h"
#include "cpu/table.h"
#include "cpu_digest.h"

namespace test {
namespace {

using namespace syncbn::cpu;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// The parts of [0, length) follow one another without a gap. Of very many, those at both ends and in the middle.
template <typename RangeOf>
void check_cover(const char *what, int64_t length, int64_t parts, const RangeOf &range_of) {
  constexpr int64_t kNear = 1000;
  CHECK(range_of(0).begin == 0, "%s begin at %lld", what, static_cast<long long>(range_of(0).begin));
  for (int64_t i = 0; i < parts; ++i) {
    if (i > kNear && i < parts / 2) i = std::max(i, parts / 2 - kNear);
    if (i > parts / 2 + kNear) i = std::max(i, parts - kNear);
    const Range range = range_of(i);
    const int64_t next = i + 1 < parts ? range_of(i + 1).begin : length;
    CHECK(range.begin <= range.end && range.end == next, "%s %lld of %lld is [%lld, %lld), the next begins at %lld",
          what, static_cast<long long>(i), static_cast<long long>(parts), static_cast<long long>(range.begin),
          static_cast<long long>(range.end), static_cast<long long>(next));
  }
}

// Runs this program again with another environment; what it prints.
std::string run_self(const std::string &assignment, const char *argument) {
  char path[4096] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) <= 0) return "no path";
  FILE *pipe = popen((assignment + " '" + path + "' " + argument).c_str(), "r");
  if (!pipe) return "no pipe";
  std::string text;
  char line[256];
  while (fgets(line, sizeof line, pipe)) text += line;
  return pclose(pipe) == 0 ? text : "failed: " + text;
}

// A tensor of more elements than memory holds. Its end, kEnd elements or more, has memory of its own. The rest is zero
// and only to be read, or, as an output, one piece of memory over and over.
class Endless {
 public:
  static constexpr int64_t kEnd = int64_t{3} << 19;  // a multiple of 3 and of a page

  Endless(int64_t elements, bool output) : pieces_((elements + kEnd - 1) / kEnd) {
    const size_t size = static_cast<size_t>(pieces_ * kBytes);
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED, "no address space");
    base_ = static_cast<char *>(memory);
    madvise(base_, size, MADV_HUGEPAGE);  // zeros in large pages: fewer faults
    if (!output) return;
    const int file = memfd_create("endless", 0);
    CHECK(file >= 0 && ftruncate(file, kBytes) == 0, "no memory file");
    for (int64_t i = 0; i + 1 < pieces_; ++i) {
      const void *mapped = mmap(base_ + i * kBytes, static_cast<size_t>(kBytes), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_FIXED | MAP_POPULATE, file, 0);
      CHECK(mapped != MAP_FAILED, "no mapping of piece %lld", static_cast<long long>(i));
    }
    close(file);
  }
  ~Endless() { munmap(base_, static_cast<size_t>(pieces_ * kBytes)); }
  Endless(const Endless &) = delete;
  Endless &operator=(const Endless &) = delete;

  syncbn_address address() const { return reinterpret_cast<syncbn_address>(base_); }
  // From element end_begin() on.
  float *end() const { return reinterpret_cast<float *>(base_ + (pieces_ - 1) * kBytes); }
  int64_t end_begin() const { return (pieces_ - 1) * kEnd; }

 private:
  static constexpr int64_t kBytes = kEnd * 4;

  int64_t pieces_;
  char *base_;
};

}  // namespace

TEST(lanes_cover_every_row_once) {
  for (const int64_t channels : {1, 2, 3, 5, 16, 63, 64, 100, 129, 257, 1000, 2048, 2049, 5000, 100000}) {
    for (const int64_t outer : {int64_t{1}, int64_t{2}, int64_t{63}, int64_t{64}, int64_t{127}, int64_t{128},
                                int64_t{129}, int64_t{1000}, int64_t{4099}, int64_t{1} << 33, kMax / 4 / channels}) {
      const Context context("[%lld, %lld]", static_cast<long long>(outer), static_cast<long long>(channels));
      const Lanes lanes(outer, channels);
      CHECK(lanes.lanes >= 1 && lanes.lanes <= max_lanes(channels), "%lld lanes", static_cast<long long>(lanes.lanes));
      CHECK(lanes.lanes * lanes.channels * kLaneValues * 8 <= workspace_bytes(channels), "the workspace is too small");
      CHECK(lanes.super_row * std::min<int64_t>(channels, kTileColumns) <= kTileColumns, "a super-row of %d rows",
            lanes.super_row);
      check_cover("lanes", outer, lanes.lanes, [&](int64_t i) { return lanes.rows(i * lanes.tiles); });
      check_cover("tiles", channels, lanes.tiles, [&](int64_t i) { return lanes.columns(i); });
      const Map map(outer, channels);
      check_cover("runs", outer, map.parts, [&](int64_t i) { return map.rows(i); });
      check_cover("tiles", channels, map.tiles, [&](int64_t i) { return map.columns(i * map.parts); });
    }
  }
}

TEST(tables_are_periodic) {
  for (const int columns : {1, 3, 5, 511, 512, 513, 2047, 2048}) {
    std::vector<float> factor(kTableRoom, -1);
    for (int i = 0; i < columns; ++i) factor[static_cast<size_t>(i)] = static_cast<float>(i);
    repeat_factor(factor.data(), columns);
    const int period = table_period(columns);
    CHECK(period % columns == 0 && period >= kTableOverlap && period + kTableOverlap <= kTableRoom, "period %d of %d",
          period, columns);
    for (int i = 0; i < period + kTableOverlap; ++i) {
      CHECK(factor[static_cast<size_t>(i)] == static_cast<float>(i % columns), "factor %d of %d", i, columns);
    }
  }
}

// The child of the next test.
TEST(print_digest) { printf("digest %016llx\n", static_cast<unsigned long long>(digest(0))); }

TEST(instruction_set_changes_no_bit) {
  const std::string want = run_self("SYNCBN_CPU_ISA=baseline", "print_digest");
  CHECK(want.find("digest") != std::string::npos, "%s", want.c_str());
  const auto digest_of = [](const std::string &text) { return text.substr(text.find("digest"), 23); };
  for (const char *isa : {"avx2", "avx512"}) {
    const std::string got = run_self(std::string("SYNCBN_CPU_ISA=") + isa, "print_digest");
    CHECK(digest_of(got) == digest_of(want), "%s gives %s, baseline %s", isa, got.c_str(), want.c_str());
  }
}

// Beyond what the caches hold outputs are streamed: every element must arrive all the same, at any alignment.
TEST(streamed_output) {
  constexpr int64_t kChannels = 35;
  constexpr int64_t kOuter = kStreamBytes / 8 / kChannels + 1;
  constexpr size_t kElements = static_cast<size_t>(kOuter * kChannels);
  std::vector<float> x(kElements + 4), y(kElements + 4);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 1001);
  std::vector<float> mean(kChannels), variance(kChannels);
  for (size_t c = 0; c < kChannels; ++c) {
    mean[c] = static_cast<float>(c);
    variance[c] = 4;
  }
  for (size_t shift : {0, 1, 3}) {
    std::fill(y.begin(), y.end(), -1.0f);
    syncbn_normalize_args args = {};
    args.struct_size = sizeof args;
    args.outer = kOuter;
    args.channels = kChannels;
    args.inner = args.world_size = 1;
    args.x = reinterpret_cast<syncbn_address>(x.data());
    args.y = reinterpret_cast<syncbn_address>(y.data() + shift);
    args.moving_mean = reinterpret_cast<syncbn_address>(mean.data());
    args.moving_variance = reinterpret_cast<syncbn_address>(variance.data());
    CHECK(syncbn_cpu_normalize(&args) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
    for (size_t i = 0; i < kElements; ++i) {
      const float want = (x[i] - mean[i % kChannels]) / 2;
      CHECK(y[i + shift] == want, "y[%zu] is %g, want %g", i, static_cast<double>(y[i + shift]),
            static_cast<double>(want));
    }
    for (size_t i = 0; i < y.size(); ++i) {
      if (i < shift || i >= kElements + shift) CHECK(y[i] == -1.0f, "element %zu outside y was written", i);
    }
  }
}

// The end of a tensor of more than 2^31 elements is read where it is, and written where it belongs.
TEST(more_than_2_to_the_31_elements) {
  constexpr int64_t kChannels = 3;
  constexpr int64_t kOuter = (int64_t{1} << 31) / kChannels + 100000;
  const Endless x(kOuter * kChannels, false);
  const Endless y(kOuter * kChannels, true);
  const int64_t end_elements = kOuter * kChannels - x.end_begin();
  for (int64_t i = 0; i < Endless::kEnd; ++i) {
    x.end()[i] = i >= end_elements ? NAN : i % 3 == 2 ? 5 : 0;
    y.end()[i] = -1;
  }
  std::vector<double> rows(2 + 2 * kChannels), saved = {1, 0, 0, 1, 1, 1, 1};
  std::vector<double> workspace(static_cast<size_t>(workspace_bytes(kChannels)) / 8);
  syncbn_stats_args stats = {};
  stats.struct_size = sizeof stats;
  stats.outer = kOuter;
  stats.channels = kChannels;
  stats.inner = stats.world_size = 1;
  stats.x = x.address();
  stats.signature = 1;
  stats.rows = reinterpret_cast<syncbn_address>(rows.data());
  stats.workspace = reinterpret_cast<syncbn_address>(workspace.data());
  CHECK(syncbn_cpu_stats(&stats) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
  const double count = static_cast<double>(kOuter);
  const double fives = static_cast<double>(end_elements / kChannels);
  CHECK(rows[1] == count, "count is %.17g", rows[1]);
  for (size_t c = 0; c < 2; ++c) CHECK(rows[2 + c] == 0 && rows[5 + c] == 0, "channel %zu is not 0", c);
  // A tenth of what a single row would change.
  CHECK(std::fabs(rows[4] - 5 * fives / count) < 0.5 / count, "the mean is %.17g", rows[4]);
  CHECK(std::fabs(rows[7] / (25 * fives * (1 - fives / count)) - 1) < 1e-6, "M2 is %.17g", rows[7]);

  syncbn_backward_reduce_args reduce = {};
  std::vector<double> sums(1 + 2 * kChannels);
  reduce.struct_size = sizeof reduce;
  reduce.outer = kOuter;
  reduce.channels = kChannels;
  reduce.inner = reduce.world_size = 1;
  reduce.signature = 1;
  reduce.x = reduce.dy = x.address();
  reduce.saved = reinterpret_cast<syncbn_address>(saved.data());
  reduce.rows = reinterpret_cast<syncbn_address>(sums.data());
  reduce.workspace = stats.workspace;
  CHECK(syncbn_cpu_backward_reduce(&reduce) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
  // Small whole numbers: exact.
  CHECK(sums[3] == 5 * fives && sums[6] == 20 * fives, "sums are %.17g and %.17g", sums[3], sums[6]);

  std::vector<float> mean = {0, 0, 0.5f}, variance = {1, 1, 1};
  syncbn_normalize_args normalize = {};
  normalize.struct_size = sizeof normalize;
  normalize.outer = kOuter;
  normalize.channels = kChannels;
  normalize.inner = normalize.world_size = 1;
  normalize.x = x.address();
  normalize.y = y.address();
  normalize.moving_mean = reinterpret_cast<syncbn_address>(mean.data());
  normalize.moving_variance = reinterpret_cast<syncbn_address>(variance.data());
  CHECK(syncbn_cpu_normalize(&normalize) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
  for (int64_t i = 0; i < Endless::kEnd; ++i) {
    const float want = i >= end_elements ? -1.0f : i % 3 == 2 ? 4.5f : 0.0f;
    CHECK(y.end()[i] == want, "y[%lld] is %g, want %g", static_cast<long long>(y.end_begin() + i),
          static_cast<double>(y.end()[i]), static_cast<double>(want));
  }
}

}  // namespace test
