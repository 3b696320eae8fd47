// The same bits with every instruction set.
#include <stdio.h>
#include <unistd.h>

#include <string>

#include "check.h"
#include "cpu_digest.h"

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
