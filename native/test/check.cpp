#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <chrono>

namespace test {
namespace {

constexpr int kPrinted = 10;

Case *cases;
char context[1024];
int context_length;
int failures;  // of the running test

bool wanted(const char *name, int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    if (strstr(name, argv[i]) != nullptr) return true;
  }
  return argc < 2;
}

// Whether every filter matches a test: one that was renamed must not be left out in silence.
bool filters_match(int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    const Case *c = cases;
    while (c && strstr(c->name, argv[i]) == nullptr) c = c->next;
    if (c) continue;
    printf("no test has %s in its name\n", argv[i]);
    return false;
  }
  return true;
}

}  // namespace

Case::Case(const char *name, void (*run)()) : name(name), run(run), next(nullptr) {
  Case **end = &cases;
  while (*end) end = &(*end)->next;
  *end = this;
}

void failed(const char *file, int line, const char *format, ...) {
  if (++failures > kPrinted) return;
  const char *slash = strrchr(file, '/');
  printf("  %s:%d: %s", slash ? slash + 1 : file, line, context);
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
}

Context::Context(const char *format, ...) : length_(context_length) {
  const int room = static_cast<int>(sizeof context) - context_length;
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(context + context_length, static_cast<size_t>(room), format, arguments);
  va_end(arguments);
  if (length < room - 2) context_length += snprintf(context + context_length + length, 3, ": ") + length;
}

Context::~Context() {
  context_length = length_;
  context[context_length] = '\0';
}

int run(int argc, char **argv) {
  // A crash must not take the names of the tests before it along.
  setvbuf(stdout, nullptr, _IOLBF, 0);
  if (!filters_match(argc, argv)) return 1;
  int ran = 0;
  int bad = 0;
  for (Case *c = cases; c; c = c->next) {
    if (!wanted(c->name, argc, argv)) continue;
    failures = 0;
    const auto start = std::chrono::steady_clock::now();
    printf("%s\n", c->name);
    c->run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (failures > kPrinted) printf("  ... and %d more\n", failures - kPrinted);
    printf("  %s, %.2f s\n", failures ? "FAILED" : "ok", seconds.count());
    ++ran;
    bad += failures != 0;
  }
  printf("%d tests, %d failed\n", ran, bad);
  return ran == 0 || bad != 0;
}

}  // namespace test
