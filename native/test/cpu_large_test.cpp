// Tensors of more than 2^31 elements, and outputs that go around the caches: with libsyncbn_cpu.so itself, since the
// sanitizers would take minutes. Every kernel must find the end of a tensor, and write nothing past it.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <vector>

#include "check.h"
#include "dtype.h"

namespace test {
namespace {

// Address space for more than memory holds. The last kEnd bytes, in which the tensor ends, are of their own. The rest
// is zero and only to be read, or, as an output, one piece of memory over and over.
class Endless {
 public:
  static constexpr int64_t kEnd = int64_t{3} << 21;  // a multiple of 3 and of a page

  Endless(int64_t bytes, bool output) : pieces_((bytes + kEnd - 1) / kEnd) {
    const size_t size = static_cast<size_t>(pieces_ * kEnd);
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED, "no address space");
    base_ = static_cast<unsigned char *>(memory);
    madvise(base_, size, MADV_HUGEPAGE);  // zeros in large pages: fewer faults
    if (!output) return;
    const int file = memfd_create("endless", 0);
    CHECK(file >= 0 && ftruncate(file, kEnd) == 0, "no memory file");
    for (int64_t i = 0; i + 1 < pieces_; ++i) {
      const void *mapped = mmap(base_ + i * kEnd, static_cast<size_t>(kEnd), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_FIXED | MAP_POPULATE, file, 0);
      CHECK(mapped != MAP_FAILED, "no mapping of piece %lld", static_cast<long long>(i));
    }
    close(file);
  }
  ~Endless() { munmap(base_, static_cast<size_t>(pieces_ * kEnd)); }
  Endless(const Endless &) = delete;
  Endless &operator=(const Endless &) = delete;

  syncbn_address address() const { return reinterpret_cast<syncbn_address>(base_); }
  unsigned char *end() const { return base_ + (pieces_ - 1) * kEnd; }
  int64_t end_begin() const { return (pieces_ - 1) * kEnd; }  // in bytes

 private:
  int64_t pieces_;
  unsigned char *base_;
};

struct Pool {
  syncbn_address address = 0;

  Pool() { CHECK(syncbn_cpu_pool_create(2, &address) == SYNCBN_OK, "%s", syncbn_cpu_last_error()); }
  ~Pool() { syncbn_cpu_pool_destroy(address); }
};

template <typename T>
syncbn_address address(std::vector<T> &values) {
  return reinterpret_cast<syncbn_address>(values.data());
}

void expect_ok(int32_t status) { CHECK(status == SYNCBN_OK, "status %d: %s", status, syncbn_cpu_last_error()); }

// Three channels that are 0 but for the last one's elements within the tensor's end, which are 5.
void check_large(int32_t dtype, int64_t outer, int64_t inner) {
  constexpr int64_t kChannels = 3;
  const int64_t elements = outer * kChannels * inner;
  const Context context("%s [%lld, 3, %lld]", name_of(dtype), static_cast<long long>(outer),
                        static_cast<long long>(inner));
  const Pool pool;
  const Endless x(elements * bytes_of(dtype), false);
  const Endless y(elements * bytes_of(dtype), true);
  const int64_t begin = x.end_begin() / bytes_of(dtype);
  const auto channel = [&](int64_t i) { return (begin + i) / inner % kChannels; };
  std::vector<double> end(static_cast<size_t>(Endless::kEnd / bytes_of(dtype)), NAN);
  double fives = 0;
  for (int64_t i = 0; i < elements - begin; ++i) {
    end[static_cast<size_t>(i)] = channel(i) == 2 ? 5 : 0;
    fives += channel(i) == 2;
  }
  const std::vector<unsigned char> bytes = encode(dtype, end);
  std::copy(bytes.begin(), bytes.end(), x.end());
  // Judges the end of an output in which a five has become `of_five` and the zeros of that channel `of_zero`.
  const auto check_end = [&](const char *what, double of_five, double of_zero) {
    const std::vector<double> got = decode(dtype, {y.end(), y.end() + Endless::kEnd});
    for (int64_t i = 0; i < static_cast<int64_t>(got.size()); ++i) {
      const double value = got[static_cast<size_t>(i)];
      const double want = channel(i) != 2 ? 0 : end[static_cast<size_t>(i)] == 5 ? of_five : of_zero;
      const bool fine = i < elements - begin ? value == want : std::isnan(value);
      CHECK(fine, "%s[%lld] is %g", what, static_cast<long long>(begin + i), value);
    }
    std::fill(y.end(), y.end() + Endless::kEnd, 0xff);
  };
  std::fill(y.end(), y.end() + Endless::kEnd, 0xff);

  std::vector<double> rows(2 + 2 * kChannels), sums(1 + 2 * kChannels);
  std::vector<double> saved = {1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0};
  std::vector<double> workspace(static_cast<size_t>(syncbn_cpu_workspace_bytes(kChannels)) / 8);
  std::vector<float> mean = {0, 0, 0.5f}, variance = {1, 1, 1};
  syncbn_control control = {};

  syncbn_stats_args stats = {};
  stats.struct_size = sizeof stats;
  stats.dtype = dtype;
  stats.outer = outer;
  stats.channels = kChannels;
  stats.inner = inner;
  stats.world_size = 1;
  stats.signature = 1;
  stats.x = x.address();
  stats.rows = address(rows);
  stats.workspace = address(workspace);
  stats.stream = pool.address;
  expect_ok(syncbn_cpu_stats(&stats));
  const double count = static_cast<double>(outer) * static_cast<double>(inner);
  CHECK(rows[1] == count, "count is %.17g", rows[1]);
  for (size_t c = 0; c < 2; ++c) CHECK(rows[2 + c] == 0 && rows[5 + c] == 0, "channel %zu is not 0", c);
  // A tenth of what a single element would change.
  CHECK(std::fabs(rows[4] - 5 * fives / count) < 0.5 / count, "the mean is %.17g", rows[4]);
  CHECK(std::fabs(rows[7] / (25 * fives * (1 - fives / count)) - 1) < 1e-6, "M2 is %.17g", rows[7]);

  syncbn_backward_reduce_args reduce = {};
  reduce.struct_size = sizeof reduce;
  reduce.dtype = dtype;
  reduce.outer = outer;
  reduce.channels = kChannels;
  reduce.inner = inner;
  reduce.world_size = 1;
  reduce.signature = 1;
  reduce.x = reduce.dy = x.address();
  reduce.saved = address(saved);
  reduce.rows = address(sums);
  reduce.workspace = stats.workspace;
  reduce.stream = pool.address;
  expect_ok(syncbn_cpu_backward_reduce(&reduce));
  // Small whole numbers: exact.
  CHECK(sums[3] == 5 * fives && sums[6] == 20 * fives, "sums are %.17g and %.17g", sums[3], sums[6]);

  syncbn_normalize_args normalize = {};
  normalize.struct_size = sizeof normalize;
  normalize.dtype = dtype;
  normalize.outer = outer;
  normalize.channels = kChannels;
  normalize.inner = inner;
  normalize.world_size = 1;
  normalize.x = x.address();
  normalize.y = y.address();
  normalize.moving_mean = address(mean);
  normalize.moving_variance = address(variance);
  normalize.stream = pool.address;
  expect_ok(syncbn_cpu_normalize(&normalize));
  check_end("y", 4.5, -0.5);

  syncbn_backward_input_args input = {};
  input.struct_size = sizeof input;
  input.dtype = dtype;
  input.outer = outer;
  input.channels = kChannels;
  input.inner = inner;
  input.world_size = input.training = 1;
  input.signature = 1;
  input.x = input.dy = x.address();
  input.dx = y.address();
  input.saved = address(saved);
  sums = {1, 0, 0, 0.25, 0, 0, 0.5};
  input.rows = address(sums);
  input.control = reinterpret_cast<syncbn_address>(&control);
  input.stream = pool.address;
  expect_ok(syncbn_cpu_backward_input(&input));
  check_end("dx", 5 - 0.25 - 4 * 0.5, 0 - 0.25 + 1 * 0.5);
}

}  // namespace

TEST(more_than_2_to_the_31_elements) {
  check_large(SYNCBN_FLOAT32, (int64_t{1} << 31) / 3 + 100000, 1);
  check_large(SYNCBN_FLOAT16, 2, (int64_t{1} << 31) / 6 + 100000);
  check_large(SYNCBN_BFLOAT16, (int64_t{1} << 31) / 48 + 1000, 16);
}

// Few elements, far apart.
TEST(strides_beyond_2_to_the_31) {
  constexpr int64_t kFar = (int64_t{1} << 32) + 4096;
  const Endless far(2 * kFar + 8, false);
  auto *const bytes = reinterpret_cast<unsigned char *>(far.address());
  for (int i = 0; i < 3; ++i) bytes[i * kFar] = static_cast<unsigned char>(1 + i);
  unsigned char got[3] = {};
  syncbn_copy_args copy = {};
  copy.struct_size = sizeof copy;
  copy.element_size = 1;
  copy.rank = 1;
  copy.shape[0] = 3;
  copy.source_strides[0] = kFar;
  copy.destination_strides[0] = 1;
  copy.source = far.address();
  copy.destination = reinterpret_cast<syncbn_address>(got);
  expect_ok(syncbn_cpu_copy(&copy));
  CHECK(got[0] == 1 && got[1] == 2 && got[2] == 3, "%d %d %d were read", got[0], got[1], got[2]);
  const unsigned char put[3] = {7, 8, 9};
  copy.source = reinterpret_cast<syncbn_address>(put);
  copy.destination = far.address();
  std::swap(copy.source_strides[0], copy.destination_strides[0]);
  expect_ok(syncbn_cpu_copy(&copy));
  for (int i = 0; i < 3; ++i) CHECK(bytes[i * kFar] == put[i], "%d was written at %d", bytes[i * kFar], i);

  // A mask with a stride like that: the second row does not count.
  bytes[kFar] = 0;
  std::vector<float> x = {1, 2, 3};
  std::vector<double> rows(5);
  std::vector<double> workspace(static_cast<size_t>(syncbn_cpu_workspace_bytes(1)) / 8);
  syncbn_stats_args stats = {};
  stats.struct_size = sizeof stats;
  stats.outer = 3;
  stats.channels = stats.inner = stats.world_size = stats.channel_counts = 1;
  stats.signature = 1;
  stats.x = address(x);
  stats.rows = address(rows);
  stats.workspace = address(workspace);
  stats.mask = far.address();
  stats.mask_outer_stride = kFar;
  expect_ok(syncbn_cpu_stats(&stats));
  CHECK(rows[2] == 2 && rows[3] == 2 && rows[4] == 2, "mean %g, M2 %g, count %g", rows[2], rows[3], rows[4]);
}

// Beyond what the caches hold outputs are streamed: every element must arrive all the same, at any alignment.
TEST(streamed_output) {
  constexpr int64_t kBytes = int64_t{12} << 20;  // of x and y
  for (const int32_t dtype : kDtypes) {
    for (const int64_t inner : {1, 37}) {
      constexpr int64_t kChannels = 35;
      const int64_t outer = kBytes / 2 / bytes_of(dtype) / kChannels / inner + 1;
      const size_t elements = static_cast<size_t>(outer * kChannels * inner);
      const Context context("%s [%lld, 35, %lld]", name_of(dtype), static_cast<long long>(outer),
                            static_cast<long long>(inner));
      std::vector<double> numbers(elements);
      for (size_t i = 0; i < elements; ++i) numbers[i] = static_cast<double>(i % 101);
      std::vector<unsigned char> x = encode(dtype, numbers);
      std::vector<double> mean(kChannels), variance(kChannels, 4);
      for (size_t c = 0; c < kChannels; ++c) mean[c] = static_cast<double>(c);
      std::vector<unsigned char> mean_bytes = encode(parameter_of(dtype), mean);
      std::vector<unsigned char> variance_bytes = encode(parameter_of(dtype), variance);
      const auto size = static_cast<size_t>(bytes_of(dtype));
      for (const size_t shift : {0, 3}) {
        std::vector<unsigned char> y(x.size() + 4 * size, 0xff);
        syncbn_normalize_args args = {};
        args.struct_size = sizeof args;
        args.dtype = dtype;
        args.outer = outer;
        args.channels = kChannels;
        args.inner = inner;
        args.world_size = 1;
        args.x = address(x);
        args.y = address(y) + shift * size;
        args.moving_mean = address(mean_bytes);
        args.moving_variance = address(variance_bytes);
        expect_ok(syncbn_cpu_normalize(&args));
        const std::vector<double> got = decode(dtype, y);
        for (size_t i = 0; i < got.size(); ++i) {
          if (i < shift || i >= elements + shift) {
            CHECK(std::isnan(got[i]), "element %zu outside y was written", i);
            continue;
          }
          const size_t c = (i - shift) / static_cast<size_t>(inner) % kChannels;
          const double want = (numbers[i - shift] - mean[c]) / 2;
          CHECK(got[i] == want, "y[%zu] is %g, want %g", i - shift, got[i], want);
        }
      }
    }
  }
}

}  // namespace test
