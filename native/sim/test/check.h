// How the tests of the simulated node check and are found.
#ifndef SYNCBN_SIM_TEST_CHECK_H
#define SYNCBN_SIM_TEST_CHECK_H

#include <string.h>

#include <string>
#include <vector>

#include "sim/device_language.h"
#include "sim/sim.h"

namespace test {

struct Test {
  const char *name;
  void (*run)();
};
std::vector<Test> &tests();
void failed(const char *file, int line, const std::string &what);

struct Registration {
  Registration(const char *name, void (*run)()) { tests().push_back({name, run}); }
};

// The text of the device's sticky error, which is then cleared.
std::string take_failure(int device);

// Changes settings for a scope.
class Scope {
 public:
  Scope() : before_(syncbn::sim::settings()) {}
  ~Scope() { syncbn::sim::settings() = before_; }

 private:
  syncbn::sim::Settings before_;
};

// Runs `body` in every order of threads and for both poisons of shared memory.
template <typename Body>
void in_every_order(Body body) {
  using syncbn::sim::Order;
  for (Order order : {Order::kAscending, Order::kDescending, Order::kRandom}) {
    for (int poison : {0x00, 0xff}) {
      Scope scope;
      syncbn::sim::settings().order = order;
      syncbn::sim::settings().poison = poison;
      body();
    }
  }
}

// Device memory with a copy of its own on the host.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count) : host(count) { cudaMalloc(reinterpret_cast<void **>(&device), bytes()); }
  Buffer(std::initializer_list<T> values) : host(values) {
    cudaMalloc(reinterpret_cast<void **>(&device), bytes());
    upload();
  }
  ~Buffer() { cudaFree(device); }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  size_t bytes() const { return host.size() * sizeof(T); }
  cudaError_t upload() { return cudaMemcpy(device, host.data(), bytes(), cudaMemcpyHostToDevice); }
  const std::vector<T> &download() {
    cudaMemcpy(host.data(), device, bytes(), cudaMemcpyDeviceToHost);
    return host;
  }

  std::vector<T> host;
  T *device = nullptr;
};

}  // namespace test

#define TEST(name)                                             \
  static void name();                                          \
  static const test::Registration name##_is_test(#name, name); \
  static void name()

#define CHECK(condition)                                            \
  do {                                                              \
    if (!(condition)) test::failed(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQUAL(actual, expected)                                                                        \
  do {                                                                                                       \
    const auto a_ = (actual);                                                                                \
    const decltype(a_) e_ = (expected);                                                                      \
    if (!(a_ == e_))                                                                                         \
      test::failed(__FILE__, __LINE__, #actual " is " + std::to_string(a_) + ", not " + std::to_string(e_)); \
  } while (0)
#define CHECK_CONTAINS(text, part)                                                                                 \
  do {                                                                                                             \
    const std::string t_ = (text);                                                                                 \
    if (t_.find(part) == std::string::npos) test::failed(__FILE__, __LINE__, "'" + t_ + "' lacks '" + part + "'"); \
  } while (0)
#define OK(call) CHECK_EQUAL(static_cast<int>(call), 0)

#endif
