// Where does a thread find a unit that it needs for a second time: in memory, or where it has kept it?
//
// A kernel that keeps its units reads memory once: the first units of a thread stay in its registers, those after them
// in its column of the block's dynamic shared memory. Between its two looks at them the blocks of a tile meet: one of
// them merges what all have found, the others wait at the tile's gate. That takes all of them on the device at a time,
// which is what a cooperative launch sees to.
#ifndef SYNCBN_CHIP_CUH
#define SYNCBN_CHIP_CUH

#include "reduce.cuh"

namespace syncbn {

// For kernels that leave the second look to another kernel.
template <typename V, int kTensors>
struct KeepNothing {
  using Cache = Keep;
  static constexpr bool kKeeps = false;
  static constexpr int kLater = units_in_flight<V>(kTensors);
  template <typename... Units>
  __device__ __forceinline__ void keep(bool, int, const Units &...) {}
  __device__ __forceinline__ void advance(bool, int) {}
};

// The units of kTensors tensors, as a source of the second look.
template <typename V, int kTensors>
struct InMemory {
  static constexpr int kUnits = units_in_flight<V>(kTensors);
  const typename V::Element *tensors[kTensors];

  __device__ __forceinline__ Packed<V> load(int tensor, int64_t offset, int) const {
    return load_unit<V, LastUse>(tensors[tensor] + offset);
  }
};

// The units of kTensors tensors that a thread has on the chip, the first kHeld of each in registers.
template <typename V, int kTensors>
class Chip {
 public:
  using Cache = LastUse;
  static constexpr bool kKeeps = true;
  static constexpr int kInFlight = units_in_flight<V>(kTensors);
  static constexpr int kHeld = units_held(kInFlight, V::kChannels, kTensors);
  static constexpr int kLater = later_units(kInFlight, V::kChannels, kTensors);

  // slots: units of each tensor that every thread has room for in dynamic shared memory.
  __device__ __forceinline__ explicit Chip(int slots) : slots_(slots) {}

  // The k-th unit of each tensor: of the first kHeld, or counted from the last advance().
  template <typename... Units>
  __device__ __forceinline__ void keep(bool first, int k, const Units &...units) {
    static_assert(sizeof...(Units) == kTensors, "a unit of each tensor");
    int tensor = 0;
    if (first) {
      ((held_[tensor++][k] = units), ...);
    } else {
      ((*slot(tensor++, stored_ + k) = units), ...);
    }
  }
  __device__ __forceinline__ void advance(bool first, int units) {
    if (!first) stored_ += units;
  }

  // The second look, at the first kHeld units.
  struct Held {
    const Chip &chip;
    __device__ __forceinline__ Packed<V> load(int tensor, int64_t, int k) const { return chip.held_[tensor][k]; }
  };
  // And at those in shared memory, from one of them on.
  struct Stored {
    const Chip &chip;
    int first;
    __device__ __forceinline__ Packed<V> load(int tensor, int64_t, int k) const {
      return *chip.slot(tensor, first + k);
    }
  };

 private:
  __device__ __forceinline__ Packed<V> *slot(int tensor, int at) const {
    SYNCBN_DYNAMIC_SHARED(uint4, memory);
    return reinterpret_cast<Packed<V> *>(memory) + (tensor * slots_ + at) * kThreads + thread_of_block();
  }

  Packed<V> held_[kTensors][kHeld] = {};
  int slots_;
  int stored_ = 0;
};

// Of a tile in a launch, made by all blocks before they draw the tile's ticket: all of them draw before it opens.
class Gate {
 public:
  __device__ __forceinline__ explicit Gate(const Workspace &workspace)
      : word_(workspace.tickets + kGates + blockIdx.x) {
    if (waits()) before_ = load_acquire(word_);
  }

  // By the block that has written the tile's result: lets the others see it.
  __device__ __forceinline__ void open() const {
    __syncthreads();
    if (waits()) {
      __threadfence();
      store_release(word_, before_ + 1);
    }
  }

  // By the others.
  __device__ __forceinline__ void pass() const {
    if (waits()) {
      while (load_acquire(word_) == before_) {
      }
    }
    __syncthreads();
  }

 private:
  static __device__ __forceinline__ bool waits() { return gridDim.y > 1 && thread_of_block() == 0; }

  uint32_t *word_;
  uint32_t before_ = 0;  // of the thread that waits
};

}  // namespace syncbn

#endif
