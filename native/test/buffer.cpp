#include "buffer.h"

#include <algorithm>

#include "backend.h"
#include "check.h"
#include "dtype.h"

namespace test {
namespace {

constexpr size_t kGuard = 256;
constexpr unsigned char kGuardByte = 0xa5;

}  // namespace

Buffer::Buffer(const char *name, int64_t bytes, int64_t misaligned)
    : name_(name), bytes_(static_cast<size_t>(bytes)), front_(kGuard + static_cast<size_t>(misaligned)) {
  if (bytes_ == 0) return;
  Bytes content(front_ + bytes_ + kGuard, kGuardByte);
  std::fill_n(content.begin() + static_cast<ptrdiff_t>(front_), bytes_, 0xff);
  memory_ = static_cast<char *>(backend::allocate(content.size()));
  backend::upload(memory_, content.data(), content.size());
  forbid(true);
}

Buffer::~Buffer() {
  if (bytes_ == 0) return;
  forbid(false);
  Bytes content(front_ + bytes_ + kGuard);
  backend::download(content.data(), memory_, content.size());
  backend::release(memory_);
  std::fill_n(content.begin() + static_cast<ptrdiff_t>(front_), bytes_, kGuardByte);
  const auto other =
      std::find_if(content.begin(), content.end(), [](unsigned char byte) { return byte != kGuardByte; });
  CHECK(other == content.end(), "a kernel wrote outside of %s, at byte %td from its start", name_,
        other - content.begin() - static_cast<ptrdiff_t>(front_));
}

void Buffer::upload_bytes(const Bytes &bytes) {
  if (!bytes.empty()) backend::upload(memory_ + front_, bytes.data(), bytes.size());
}

Bytes Buffer::download_bytes() const {
  Bytes bytes(bytes_);
  if (bytes_ > 0) backend::download(bytes.data(), memory_ + front_, bytes_);
  return bytes;
}

void Buffer::forbid(bool forbidden) {
  backend::forbid(memory_, front_, forbidden);
  backend::forbid(memory_ + front_ + bytes_, kGuard, forbidden);
}

Tensor::Tensor(const char *name, int32_t dtype, int64_t count, int64_t misaligned)
    : Buffer(name, count * bytes_of(dtype), misaligned * bytes_of(dtype)), dtype_(dtype) {}

void Tensor::upload(const std::vector<double> &values) { upload_bytes(encode(dtype_, values)); }
std::vector<double> Tensor::download() const { return decode(dtype_, download_bytes()); }

}  // namespace test
