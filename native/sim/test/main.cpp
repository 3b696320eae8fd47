// Runs the tests of the simulated node: all, or those whose names contain the first argument.
#include <stdio.h>

#include "check.h"
#include "sim/memory.h"

extern "C" void sim_fail(const char *name, long k, int code);
extern "C" long sim_failure(int device, char *to, long capacity);

namespace test {

int failures = 0;

std::vector<Test> &tests() {
  static std::vector<Test> all;
  return all;
}

void failed(const char *file, int line, const std::string &what) {
  ++failures;
  const char *slash = strrchr(file, '/');
  fprintf(stderr, "  FAILED %s:%d: %s\n", slash ? slash + 1 : file, line, what.c_str());
}

std::string take_failure(int device) {
  char text[2048];
  sim_failure(device, text, sizeof text);
  syncbn::sim::revive_device(device);
  cudaGetLastError();
  return text;
}

}  // namespace test

// Defined in collectives.cpp: two processes, which must part before this one has threads.
void two_processes();

int main(int count, char **arguments) {
  const char *wanted = count > 1 ? arguments[1] : "";
  if (strstr("two_processes", wanted)) two_processes();
  for (const test::Test &one : test::tests()) {
    if (!strstr(one.name, wanted)) continue;
    const int before = test::failures;
    one.run();
    const std::string overruns = syncbn::sim::overruns();
    if (!overruns.empty()) test::failed(one.name, 0, overruns);
    printf("%s %s\n", test::failures == before ? "ok    " : "FAILED", one.name);
    fflush(stdout);
  }
  for (const char *kind : {"allocations", "hostAllocations", "streams", "events", "graphs", "communicators"}) {
    CHECK_EQUAL(syncbn::sim::live(kind, -1), 0);
  }
  if (test::failures)
    fprintf(stderr, "SYNCBN_SIM_SEED=%lu\n", static_cast<unsigned long>(syncbn::sim::settings().seed));
  return test::failures != 0;
}
