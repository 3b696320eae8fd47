// Memory of the device between guard zones, which a kernel must leave alone.
#ifndef SYNCBN_TEST_BUFFER_H
#define SYNCBN_TEST_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "syncbn.h"

namespace test {

using Bytes = std::vector<unsigned char>;

class Buffer {
 public:
  // Poisoned: every byte 0xff, which is a NaN in every floating-point type. misaligned: bytes that the first one lies
  // past a multiple of 256. name is a literal. Without bytes there is no memory, and the address is 0.
  Buffer(const char *name, int64_t bytes, int64_t misaligned = 0);
  ~Buffer();
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;

  syncbn_address address() const { return bytes_ == 0 ? 0 : reinterpret_cast<syncbn_address>(memory_ + front_); }

  // Fewer bytes than the buffer has go to its front.
  void upload_bytes(const Bytes &bytes);
  // After everything that was enqueued.
  Bytes download_bytes() const;

 private:
  void forbid(bool forbidden);

  const char *name_;
  size_t bytes_;
  size_t front_;
  char *memory_ = nullptr;
};

// The elements of one dtype.
class Tensor : public Buffer {
 public:
  // misaligned: in elements.
  Tensor(const char *name, int32_t dtype, int64_t count, int64_t misaligned = 0);

  // Each a number that the dtype has.
  void upload(const std::vector<double> &values);
  std::vector<double> download() const;

 private:
  const int32_t dtype_;
};

}  // namespace test

#endif
