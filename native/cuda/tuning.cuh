// How much does each kernel take on at a time? Chosen for an H100 by counting bytes; a measurement may know better.
#ifndef SYNCBN_TUNING_CUH
#define SYNCBN_TUNING_CUH

#include "index.cuh"

namespace syncbn {

// Of stats and backward_reduce. Tiles of 32 channels: even 64 channels have two blocks that merge. Wider ones would
// leave the merge, which is the tail of the launch, to fewer blocks.
constexpr Tiling kReduceTiling = {32, 2, true};

// Of normalize and backward_input.
constexpr Tiling kTransformTiling = {128, 2, false};

// The bytes that a thread loads before it needs the first of them: 64 KB in flight a multiprocessor.
constexpr int kBytesInFlight = 65536 / (kBlocksOfMultiprocessor * kThreads);

// How many units a thread has in flight of each of so many tensors: as far as the registers go.
template <typename V>
constexpr int units_in_flight(int tensors) {
  const int units = kBytesInFlight / (V::kWidth * static_cast<int>(sizeof(typename V::Element)));
  const int most = V::kSpecial ? 8 : V::kWidth > 1 && !V::kWhole ? 32 / V::kWidth : 16;
  return (units < most ? units : most) / tensors;
}

}  // namespace syncbn

#endif
