// How much does each kernel take on at a time? Chosen for an H100 by counting bytes; a measurement may know better.
#ifndef SYNCBN_TUNING_CUH
#define SYNCBN_TUNING_CUH

#include "index.cuh"

namespace syncbn {

// Of stats and backward_reduce. Tiles of 32 channels: even 64 channels have two blocks that merge. Wider ones would
// leave the merge, which is the tail of the launch, to fewer blocks.
constexpr int kTileChannels = 32;
constexpr Tiling kReduceTiling = {kTileChannels, 2, true};

// Of normalize and backward_input: the same, so that a block takes on again what a block of the first pass had.
constexpr Tiling kTransformTiling = {kTileChannels, 2, false};

// The bytes that a thread loads before it needs the first of them: 64 KB in flight a multiprocessor.
constexpr int kBytesInFlight = 65536 / (kBlocksOfMultiprocessor * kThreads);

// How many units a thread has in flight of each of so many tensors: as far as the registers go.
constexpr int units_in_flight(int width, int64_t element_size, Access access, int tensors) {
  const int units = kBytesInFlight / (width * static_cast<int>(element_size));
  const int most = access == Access::kSpecial ? 8 : width > 1 && access == Access::kSingle ? 32 / width : 16;
  return (units < most ? units : most) / tensors;
}
template <typename V>
constexpr int units_in_flight(int tensors) {
  return units_in_flight(V::kWidth, sizeof(typename V::Element), V::kAccess, tensors);
}

// Where y (dx) is larger, it is stored as what leaves the caches first: half of an H100's 50 MB of L2, which do not
// hold x and y both. It would displace what of x (x and dy) the second pass still has to read; the next layer finds
// little of it anyway.
constexpr int64_t kStreamedBytes = 25 << 20;

// A thread that keeps its units has the first ones in registers, where they take the place of others in flight: how
// many of each tensor those are, and how many it has in flight of the later ones, as far as the registers go.
constexpr int units_held(int in_flight, int channels, int tensors) {
  return channels == 8 ? in_flight - (tensors == 1 ? 2 : 1) : in_flight;
}
constexpr int later_units(int in_flight, int channels, int tensors) {
  return channels == 8 ? in_flight / 2 : tensors == 2 ? in_flight - 1 : in_flight;
}

}  // namespace syncbn

#endif
