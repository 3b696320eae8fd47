// How does an element become v, what y is before the ReLU? Forward and backward both ask, and must find the same bits:
// behind a ReLU without a stored mask, backward decides from v whether the gradient passes.
//
// v = (xhat * r + d) * gamma + beta, xhat = (x - mean) / sigma. Per channel, in float64, that becomes (x - mean) *
// scale
// + offset, with mean rounded to Compute<T> and what that leaves folded into offset: so x - mean loses no digits, and
// no element costs float64 arithmetic. With an adjustment v = ((xhat * r + d) * a + b) * gamma + beta, a and b of the
// element.
#ifndef SYNCBN_TRANSFORM_CUH
#define SYNCBN_TRANSFORM_CUH

#include "element.cuh"

namespace syncbn {

// How forward normalizes a channel. `saved` is float64 [5][channels]: the count, then these.
struct Normalization {
  double mean;
  double inverse_sigma;
  double r;
  double d;
};

__device__ __forceinline__ Normalization load_saved(const double *saved, int64_t channels, int64_t channel) {
  const double *at = saved + channels + channel;
  return {at[0], at[channels], at[2 * channels], at[3 * channels]};
}

__device__ __forceinline__ void store_saved(double *saved, int64_t channels, int64_t channel, double count,
                                            const Normalization &n) {
  double *at = saved + channel;
  at[0] = count;
  at[channels] = n.mean;
  at[2 * channels] = n.inverse_sigma;
  at[3 * channels] = n.r;
  at[4 * channels] = n.d;
}

// What a parameter is that may be absent.
template <typename Real>
__device__ __forceinline__ Real parameter(const void *address, int64_t channel, Real absent) {
  return address ? static_cast<const Real *>(address)[channel] : absent;
}

// Of a channel.
template <typename Real>
struct Transform {
  Real mean;
  Real scale;
  Real offset;
  // For what comes after an adjustment; scale and offset are then without them.
  Real gamma;
  Real beta;
};

template <typename Real>
__device__ __forceinline__ Transform<Real> transform_of(const Normalization &n, Real gamma, Real beta, bool adjusted) {
  const double factor = adjusted ? 1.0 : static_cast<double>(gamma);
  const double term = adjusted ? 0.0 : static_cast<double>(beta);
  const double scale = __dmul_rn(__dmul_rn(n.inverse_sigma, n.r), factor);
  const Real mean = static_cast<Real>(n.mean);
  const double low = n.mean - static_cast<double>(mean);
  double offset = fused(n.d, factor, term);
  // Where sigma is 0, scale is infinite, and 0 times it would be NaN.
  if (low != 0) offset = fused(-low, scale, offset);
  return {mean, static_cast<Real>(scale), static_cast<Real>(offset), gamma, beta};
}

template <typename Real>
__device__ __forceinline__ Real apply(const Transform<Real> &t, Real x) {
  return fused(x - t.mean, t.scale, t.offset);
}

// The factor of gamma in v, where there is an adjustment, and v.
template <typename Real>
__device__ __forceinline__ Real apply(const Transform<Real> &t, Real x, Real a, Real b) {
  return fused(fused(apply(t, x), a, b), t.gamma, t.beta);
}

// An element-wise adjustment; both or none.
template <typename Real>
struct Adjustment {
  const Real *scale;
  const Real *bias;
};

// Of a unit: 1 and 0 where there is none.
template <typename V>
struct Adjusting {
  typename V::Real a[V::kWidth];
  typename V::Real b[V::kWidth];
};

template <typename V>
__device__ __forceinline__ Adjusting<V> load_adjustment(const Adjustment<typename V::Real> &adjustment,
                                                        int64_t offset) {
  Adjusting<V> result;
#pragma unroll
  for (int j = 0; j < V::kWidth; ++j) {
    result.a[j] = adjustment.scale ? adjustment.scale[offset + j] : 1;
    result.b[j] = adjustment.scale ? adjustment.bias[offset + j] : 0;
  }
  return result;
}

}  // namespace syncbn

#endif
