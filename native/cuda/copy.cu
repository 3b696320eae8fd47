// destination[i * destination_strides] = source[i * source_strides] for every index i within a shape.
//
// in   source       elements of 1, 2, 4 or 8 bytes, strided
// out  destination  the same
//
// Algorithm  Dimensions are sorted by their destination stride on the host; each thread takes indices of the innermost
//            ones, so that neighbours write neighbouring elements, and divides its way to the outer ones.
// Launch     block 256, grid at most 4096, which stride over the elements.
// Traffic    reads and writes each element once; the reads are as scattered as the source is in the destination's
//            order.
// Designed   for what is rare: layouts that the other kernels do not know.
// Result     deterministic: a copy.
// Index      32-bit division up to 2^32 elements, 64-bit beyond; offsets are 64-bit.
#include "entry.cuh"

namespace syncbn {
namespace {

constexpr int64_t kBlocksOfCopy = 4096;

struct Dimension {
  int64_t size;
  int64_t source;
  int64_t destination;
};

struct CopyParams {
  const void *source;
  void *destination;
  uint64_t elements;
  int rank;
  Dimension dimensions[SYNCBN_MAX_RANK];  // the innermost first; none of size 1
};

template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads) copy_kernel(const __grid_constant__ CopyParams p) {
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.elements; i += step) {
    Index left = static_cast<Index>(i);
    int64_t source = 0;
    int64_t destination = 0;
    for (int d = 0; d < p.rank; ++d) {
      const Dimension &dimension = p.dimensions[d];
      const Index size = static_cast<Index>(dimension.size);
      const Index next = left / size;
      const int64_t at = static_cast<int64_t>(left - next * size);
      source += at * dimension.source;
      destination += at * dimension.destination;
      left = next;
    }
    static_cast<T *>(p.destination)[destination] = static_cast<const T *>(p.source)[source];
  }
}

// Keeps them sorted by destination stride.
void insert(CopyParams &p, const Dimension &dimension) {
  int at = p.rank++;
  for (; at > 0 && p.dimensions[at - 1].destination > dimension.destination; --at) {
    p.dimensions[at] = p.dimensions[at - 1];
  }
  p.dimensions[at] = dimension;
}

template <typename T>
auto kernel_for(const CopyParams &p) {
  return p.elements <= UINT32_MAX ? copy_kernel<T, uint32_t> : copy_kernel<T, uint64_t>;
}

auto kernel_for(const CopyParams &p, int32_t element_size) {
  switch (element_size) {
    case 1:
      return kernel_for<uint8_t>(p);
    case 2:
      return kernel_for<uint16_t>(p);
    case 4:
      return kernel_for<uint32_t>(p);
    default:
      return kernel_for<uint64_t>(p);
  }
}

}  // namespace
}  // namespace syncbn

int32_t syncbn_cuda_copy(const syncbn_copy_args *args) {
  using namespace syncbn;
  if (const int status = check(args, last_error())) return status;
  CopyParams p = {};
  p.source = pointer<const void>(args->source);
  p.destination = pointer<void>(args->destination);
  p.elements = 1;
  for (int d = 0; d < args->rank; ++d) {
    const int64_t size = args->shape[d];
    if (size == 0) return SYNCBN_OK;
    p.elements *= static_cast<uint64_t>(size);
    if (size > 1) insert(p, {size, args->source_strides[d], args->destination_strides[d]});
  }
  const uint64_t blocks = (p.elements - 1) / kThreads + 1;
  const dim3 grid(static_cast<unsigned>(blocks < kBlocksOfCopy ? blocks : kBlocksOfCopy));
  return enqueue("copy", kernel_for(p, args->element_size), {grid, dim3(kThreads)}, args->stream, p);
}
