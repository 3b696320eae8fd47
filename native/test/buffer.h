// Memory of the device between guard zones, which a kernel must leave alone.
#ifndef SYNCBN_TEST_BUFFER_H
#define SYNCBN_TEST_BUFFER_H

#include <stdint.h>
#include <string.h>

#include <vector>

#include "backend.h"
#include "check.h"

namespace test {

template <typename T>
class Buffer {
 public:
  // Poisoned: every byte 0xff, which is a NaN in every floating-point type. misaligned: elements that the first one
  // lies past a multiple of 256 bytes. name is a literal.
  Buffer(const char *name, int64_t count, int misaligned = 0)
      : name_(name),
        bytes_(static_cast<size_t>(count) * sizeof(T)),
        front_(kGuard + static_cast<size_t>(misaligned) * sizeof(T)),
        memory_(static_cast<char *>(backend::allocate(front_ + bytes_ + kGuard))) {
    const std::vector<unsigned char> guard(front_, kGuardByte);
    const std::vector<unsigned char> poison(bytes_, 0xff);
    backend::upload(memory_, guard.data(), front_);
    if (bytes_ > 0) backend::upload(memory_ + front_, poison.data(), bytes_);
    backend::upload(memory_ + front_ + bytes_, guard.data(), kGuard);
    forbid(true);
  }

  ~Buffer() {
    forbid(false);
    check_guard("before", 0, front_);
    check_guard("after", front_ + bytes_, kGuard);
    backend::release(memory_);
  }

  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;

  syncbn_address address() const { return reinterpret_cast<syncbn_address>(memory_ + front_); }

  void upload(const std::vector<T> &values) {
    if (bytes_ > 0) backend::upload(memory_ + front_, values.data(), bytes_);
  }

  // After everything that was enqueued.
  std::vector<T> download() const {
    backend::synchronize();
    std::vector<T> values(bytes_ / sizeof(T));
    if (bytes_ > 0) backend::download(values.data(), memory_ + front_, bytes_);
    return values;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kGuardByte = 0xa5;

  void forbid(bool forbidden) {
    backend::forbid(memory_, front_, forbidden);
    backend::forbid(memory_ + front_ + bytes_, kGuard, forbidden);
  }

  void check_guard(const char *side, size_t begin, size_t bytes) const {
    backend::synchronize();
    std::vector<unsigned char> guard(bytes);
    backend::download(guard.data(), memory_ + begin, bytes);
    for (size_t i = 0; i < bytes; ++i) {
      if (guard[i] == kGuardByte) continue;
      failed(__FILE__, __LINE__, "a kernel wrote %s %s, at byte %zd from its start", side, name_,
             static_cast<ptrdiff_t>(begin + i) - static_cast<ptrdiff_t>(front_));
      return;
    }
  }

  const char *name_;
  size_t bytes_;
  size_t front_;
  char *memory_;
};

}  // namespace test

#endif
