// How do the lanes of a warp exchange values?
#include "block.h"

namespace syncbn::sim {

namespace {

const char *const kWarpNames[] = {"__syncwarp",     "__ballot_sync",    "__shfl_sync",
                                  "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};

// The lane whose value `lane` gets; CUDA gives a lane its own value where the source is outside its segment.
int source_lane(sim_warp_operation operation, int lane, int operand, int width) {
  const int first = lane & ~(width - 1);
  int source;
  switch (operation) {
    case SIM_WARP_SHUFFLE:
      return first + (operand & (width - 1));
    case SIM_WARP_SHUFFLE_UP:
      source = lane - operand;
      return source < first ? lane : source;
    case SIM_WARP_SHUFFLE_DOWN:
      source = lane + operand;
      return source >= first + width ? lane : source;
    default:
      source = lane ^ operand;
      return source >= first + width ? lane : source;
  }
}

}  // namespace

uint64_t Block::warp(sim_warp_operation operation, uint32_t mask, uint64_t value, int operand, int width, int line) {
  progress();
  Warp &warp = warps_[current_->rank / 32];
  const int lane = static_cast<int>(current_->rank % 32);
  const uint32_t bit = 1u << lane;
  if (!(mask & bit)) {
    fail(cudaErrorLaunchFailure, "%s calls %s in line %d with mask 0x%08x, which lacks its own lane %d", who(*current_),
         kWarpNames[operation], line, mask, lane);
  }
  if (width < 1 || width > 32 || (width & (width - 1))) {
    fail(cudaErrorLaunchFailure, "%s in line %d: width %d is no power of two up to 32", kWarpNames[operation], line,
         width);
  }
  warp.in[lane] = {mask, operation, line, operand, width, value};
  warp.arrived |= bit;
  const uint32_t needed = mask & warp.alive;
  if ((warp.arrived & needed) == needed) {
    complete(warp, needed);
  } else {
    wait(kWarpNames[operation], line, [&] { return (warp.ready & bit) != 0; });
  }
  warp.ready &= ~bit;
  return warp.out[lane];
}

void Block::complete(Warp &warp, uint32_t lanes) {
  const Deposit &first = warp.in[__builtin_ctz(lanes)];
  uint32_t ballot = 0;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const Deposit &own = warp.in[lane];
    if (own.operation != first.operation || own.mask != first.mask || own.line != first.line) {
      fail(cudaErrorLaunchFailure,
           "lanes of a warp meet at different operations: %s(0x%08x) in line %d and, lane %d, %s(0x%08x) in line "
           "%d",
           kWarpNames[first.operation], first.mask, first.line, lane, kWarpNames[own.operation], own.mask, own.line);
    }
    if (own.value) ballot |= 1u << lane;
  }
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const Deposit &own = warp.in[lane];
    if (own.operation <= SIM_WARP_BALLOT) {
      warp.out[lane] = ballot;
      continue;
    }
    const int source = source_lane(own.operation, lane, own.operand, own.width);
    if (source < 0 || source > 31 || !(lanes >> source & 1)) {
      fail(cudaErrorLaunchFailure, "%s in line %d: lane %d reads lane %d, which does not take part (mask 0x%08x)",
           kWarpNames[own.operation], own.line, lane, source, own.mask);
    }
    warp.out[lane] = warp.in[source].value;
  }
  warp.arrived &= ~lanes;
  warp.ready |= lanes;
  progress();
}

}  // namespace syncbn::sim
