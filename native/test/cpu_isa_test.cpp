// The same bits with every instruction set.
#include <stdio.h>
#include <unistd.h>

#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "cpu_digest.h"
#include "syncbn.h"

namespace test {
namespace {

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

}  // namespace

// x * gamma + beta, in which half the products are half-way between two floats, and beta, far below a double's last
// place, says where to; and those that are denormal.
TEST(products_and_sums_are_rounded_once) {
  std::vector<float> x, y;
  for (int i = 0; i < 4096; i += 5) x.push_back(1 + std::ldexp(static_cast<float>(i), -12));
  for (size_t i = x.size(); i-- > 0;) x.push_back(std::ldexp(-x[i], -80));
  for (const float special : {0.0f, INFINITY, -INFINITY, NAN}) x.push_back(special);
  y.resize(x.size());
  const float zero = 0;
  const float one = 1;
  for (const float gamma : {1 + 0x1p-12f, 1 + 0x777p-12f, -1 - 0x321p-12f, 0x1.246p-60f, 0x1.357p60f}) {
    for (const float beta : {0.0f, 0x1p-60f, -0x1p-60f, -1.0f, 0x1p-149f, -0x1p-140f, 0x1p100f}) {
      syncbn_normalize_args args = {};
      args.struct_size = sizeof args;
      args.dtype = SYNCBN_FLOAT32;
      args.outer = static_cast<int64_t>(x.size());
      args.channels = args.inner = args.world_size = 1;
      args.x = reinterpret_cast<syncbn_address>(x.data());
      args.y = reinterpret_cast<syncbn_address>(y.data());
      args.gamma = reinterpret_cast<syncbn_address>(&gamma);
      args.beta = reinterpret_cast<syncbn_address>(&beta);
      args.moving_mean = reinterpret_cast<syncbn_address>(&zero);
      args.moving_variance = reinterpret_cast<syncbn_address>(&one);
      CHECK(syncbn_cpu_normalize(&args) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
      for (size_t i = 0; i < x.size(); ++i) {
        const float want = std::fmaf(x[i], gamma, beta);
        CHECK(y[i] == want || (std::isnan(y[i]) && std::isnan(want)), "%a * %a + %a is %a, want %a",
              static_cast<double>(x[i]), static_cast<double>(gamma), static_cast<double>(beta),
              static_cast<double>(y[i]), static_cast<double>(want));
      }
    }
  }
}

// The child of the next test.
TEST(print_digest) { printf("digest %016llx\n", static_cast<unsigned long long>(Work().digest(0))); }

TEST(instruction_set_changes_no_bit) {
  const std::string want = run_self("SYNCBN_CPU_ISA=baseline", "print_digest");
  CHECK(want.find("digest") != std::string::npos, "%s", want.c_str());
  const auto digest_of = [](const std::string &text) { return text.substr(text.find("digest"), 23); };
  for (const char *isa : {"avx2", "avx512", "widest"}) {
    const std::string got = run_self(std::string("SYNCBN_CPU_ISA=") + isa, "print_digest");
    CHECK(digest_of(got) == digest_of(want), "%s gives %s, baseline %s", isa, got.c_str(), want.c_str());
  }
  for (const char *isa : {"baseline", "avx2", "avx512"}) {
    const std::string got = run_self(std::string("SYNCBN_CPU_ISA=") + isa, "products_and_sums_are_rounded_once");
    CHECK(got.find("failed: ") == std::string::npos, "%s: %s", isa, got.c_str());
  }
}

}  // namespace test
