// How does a test program here name, run and judge its tests?
//
//   TEST(name) { CHECK(condition, "text with %d", values); }
//
// A failed check prints its place and text and counts; the test goes on, so that one run shows every difference. Run
// with a part of a name to run those tests only. The exit status is 0 if every check held.
#ifndef SYNCBN_TEST_CHECK_H
#define SYNCBN_TEST_CHECK_H

namespace test {

struct Case {
  const char *name;
  void (*run)();
  Case *next;

  Case(const char *name, void (*run)());
};

// Counts a failure and prints it; after some of one test, counts only.
__attribute__((format(printf, 3, 4))) void failed(const char *file, int line, const char *format, ...);

// What is being tested, put before the text of each failure. In effect until it goes out of scope; these nest.
class Context {
 public:
  __attribute__((format(printf, 2, 3))) explicit Context(const char *format, ...);
  ~Context();
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;

 private:
  int length_;
};

// Runs the tests whose name contains an argument (all without one), prints "N tests, M failed".
int run(int argc, char **argv);

}  // namespace test

#define TEST(name)                                   \
  static void test_##name();                         \
  static test::Case case_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition, ...)                                        \
  do {                                                               \
    if (!(condition)) test::failed(__FILE__, __LINE__, __VA_ARGS__); \
  } while (0)

#endif
