// What does a channel do to its elements? v of the header, with the factors of a channel rounded once.
//
// Forward and backward make these from the same values with the same operations, so that a ReLU's derivative that is
// computed again agrees with the ReLU, bit for bit.
#ifndef SYNCBN_CPU_TRANSFORM_H
#define SYNCBN_CPU_TRANSFORM_H

#include <stdint.h>

#include "call.h"
#include "element.h"

namespace syncbn::cpu {

// The part of a mean that an element is compared with, and what is left of it. Where the mean is large against sigma
// the difference from `high` is exact.
template <typename R>
struct SplitMean {
  R high;
  double low;

  explicit SplitMean(double mean) : high(static_cast<R>(mean)), low(mean - static_cast<double>(high)) {}

  // low * factor, also where the factor is infinite.
  double low_times(double factor) const { return low == 0 ? 0 : low * factor; }
};

// v = (x - shift) * scale + offset.
template <typename R>
struct Affine {
  R shift;
  R scale;
  R offset;

  Affine() = default;
  // xhat * r + d, times gamma, plus beta.
  Affine(double mean, double inverse, double r, double d, double gamma, double beta) {
    const SplitMean<R> split(mean);
    const double factor = inverse * r * gamma;
    shift = split.high;
    scale = static_cast<R>(factor);
    offset = static_cast<R>(d * gamma + beta - split.low_times(factor));
  }

  R operator()(R x) const { return multiply_add(x - shift, scale, offset); }
};

// A parameter of a channel; `absent` where there is none.
template <typename R>
double parameter(syncbn_address address, int64_t channel, double absent) {
  return address ? static_cast<double>(pointer<const R>(address)[channel]) : absent;
}

// `saved` of the header.
struct Saved {
  double *count;
  double *mean;
  double *inverse;
  double *r;
  double *d;

  Saved(syncbn_address address, int64_t channels)
      : count(pointer<double>(address)),
        mean(count + channels),
        inverse(mean + channels),
        r(inverse + channels),
        d(r + channels) {}
};

// v of single elements, with an adjustment if there is one.
template <typename R>
class Value {
 public:
  Value() = default;
  // Args: those of normalize or of a backward operation.
  template <typename Args>
  Value(const Args &args, int64_t channel, double mean, double inverse, double r, double d)
      : gamma_(static_cast<R>(parameter<R>(args.gamma, channel, 1))),
        beta_(static_cast<R>(parameter<R>(args.beta, channel, 0))),
        affine_(mean, inverse, r, d, args.adjust_scale ? 1 : static_cast<double>(gamma_),
                args.adjust_scale ? 0 : static_cast<double>(beta_)) {}

  // adjust_scale, adjust_bias: the tensors, or null.
  R operator()(R x, const R *adjust_scale, const R *adjust_bias, int64_t index) const {
    const R value = affine_(x);
    return adjust_scale ? (value * adjust_scale[index] + adjust_bias[index]) * gamma_ + beta_ : value;
  }

 private:
  R gamma_;
  R beta_;
  Affine<R> affine_;
};

// Which elements count.
class Mask {
 public:
  template <typename Args>
  explicit Mask(const Args &args)
      : bytes_(pointer<const uint8_t>(args.mask)),
        outer_stride_(args.mask_outer_stride),
        channel_stride_(args.mask_channel_stride),
        inner_stride_(args.mask_inner_stride) {}

  bool counts(int64_t outer, int64_t channel, int64_t inner) const {
    return !bytes_ || bytes_[outer * outer_stride_ + channel * channel_stride_ + inner * inner_stride_] != 0;
  }

 private:
  const uint8_t *bytes_;
  int64_t outer_stride_;
  int64_t channel_stride_;
  int64_t inner_stride_;
};

}  // namespace syncbn::cpu

#endif
