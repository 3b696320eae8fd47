// Are our declarations of CUDA and NCCL binary compatible with NVIDIA's? Compiled only where NVIDIA's headers are; all
// of the check happens in the compiler, but for the conversions of 16-bit types.
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SYNCBN_SIM_TYPES_ONLY
namespace ours {
#include "sim/include/cuda_bf16.h"
#include "sim/include/cuda_fp16.h"
#include "sim/include/cuda_runtime.h"
}  // namespace ours
// What ours defines as macros, NVIDIA's must define alike: the compiler warns of a macro that changes.
#undef cudaStreamLegacy
#undef cudaStreamPerThread
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#define SAME_SIZE(type) \
  static_assert(sizeof(ours::type) == sizeof(::type) && alignof(ours::type) == alignof(::type), #type)
#define SAME_FIELD(type, ours_field, field)                                    \
  static_assert(offsetof(ours::type, ours_field) == offsetof(::type, field) && \
                    sizeof(ours::type::ours_field) == sizeof(::type::field),   \
                #type "." #field)
#define SAME_VALUE(name) static_assert(static_cast<long>(ours::name) == static_cast<long>(::name), #name)

SAME_SIZE(uint3);
SAME_SIZE(dim3);
SAME_SIZE(int2);
SAME_SIZE(int4);
SAME_SIZE(uint2);
SAME_SIZE(uint4);
SAME_SIZE(float2);
SAME_SIZE(float4);
SAME_SIZE(double2);
SAME_SIZE(__half);
SAME_SIZE(__nv_bfloat16);

SAME_SIZE(cudaError_t);
SAME_SIZE(cudaMemcpyKind);
SAME_SIZE(cudaDeviceAttr);
SAME_SIZE(cudaStreamCaptureMode);
SAME_SIZE(cudaStreamCaptureStatus);
SAME_SIZE(cudaFuncAttribute);

SAME_SIZE(cudaPointerAttributes);
SAME_FIELD(cudaPointerAttributes, type, type);
SAME_FIELD(cudaPointerAttributes, device, device);
SAME_FIELD(cudaPointerAttributes, devicePointer, devicePointer);
SAME_FIELD(cudaPointerAttributes, hostPointer, hostPointer);

SAME_SIZE(cudaLaunchAttributeValue);
SAME_FIELD(cudaLaunchAttributeValue, cooperative, cooperative);
SAME_SIZE(cudaLaunchAttribute);
SAME_FIELD(cudaLaunchAttribute, id, id);
SAME_FIELD(cudaLaunchAttribute, val, val);
SAME_SIZE(cudaLaunchConfig_t);
SAME_FIELD(cudaLaunchConfig_t, gridDim, gridDim);
SAME_FIELD(cudaLaunchConfig_t, blockDim, blockDim);
SAME_FIELD(cudaLaunchConfig_t, dynamicSmemBytes, dynamicSmemBytes);
SAME_FIELD(cudaLaunchConfig_t, stream, stream);
SAME_FIELD(cudaLaunchConfig_t, attrs, attrs);
SAME_FIELD(cudaLaunchConfig_t, numAttrs, numAttrs);

SAME_VALUE(cudaSuccess);
SAME_VALUE(cudaErrorInvalidValue);
SAME_VALUE(cudaErrorMemoryAllocation);
SAME_VALUE(cudaErrorInitializationError);
SAME_VALUE(cudaErrorInvalidConfiguration);
SAME_VALUE(cudaErrorInvalidMemcpyDirection);
SAME_VALUE(cudaErrorInsufficientDriver);
SAME_VALUE(cudaErrorCallRequiresNewerDriver);
SAME_VALUE(cudaErrorInvalidDeviceFunction);
SAME_VALUE(cudaErrorNoDevice);
SAME_VALUE(cudaErrorInvalidDevice);
SAME_VALUE(cudaErrorOperatingSystem);
SAME_VALUE(cudaErrorInvalidResourceHandle);
SAME_VALUE(cudaErrorIllegalState);
SAME_VALUE(cudaErrorNotReady);
SAME_VALUE(cudaErrorDevicesUnavailable);
SAME_VALUE(cudaErrorNoKernelImageForDevice);
SAME_VALUE(cudaErrorUnsupportedPtxVersion);
SAME_VALUE(cudaErrorIllegalAddress);
SAME_VALUE(cudaErrorLaunchOutOfResources);
SAME_VALUE(cudaErrorLaunchTimeout);
SAME_VALUE(cudaErrorLaunchFailure);
SAME_VALUE(cudaErrorCooperativeLaunchTooLarge);
SAME_VALUE(cudaErrorNotPermitted);
SAME_VALUE(cudaErrorNotSupported);
SAME_VALUE(cudaErrorSystemNotReady);
SAME_VALUE(cudaErrorSystemDriverMismatch);
SAME_VALUE(cudaErrorCompatNotSupportedOnDevice);
SAME_VALUE(cudaErrorStreamCaptureUnsupported);
SAME_VALUE(cudaErrorStreamCaptureInvalidated);
SAME_VALUE(cudaErrorStreamCaptureMerge);
SAME_VALUE(cudaErrorStreamCaptureUnmatched);
SAME_VALUE(cudaErrorStreamCaptureUnjoined);
SAME_VALUE(cudaErrorStreamCaptureIsolation);
SAME_VALUE(cudaErrorStreamCaptureImplicit);
SAME_VALUE(cudaErrorCapturedEvent);
SAME_VALUE(cudaErrorStreamCaptureWrongThread);
SAME_VALUE(cudaErrorUnknown);
SAME_VALUE(cudaMemcpyHostToHost);
SAME_VALUE(cudaMemcpyHostToDevice);
SAME_VALUE(cudaMemcpyDeviceToHost);
SAME_VALUE(cudaMemcpyDeviceToDevice);
SAME_VALUE(cudaMemcpyDefault);
SAME_VALUE(cudaMemoryTypeUnregistered);
SAME_VALUE(cudaMemoryTypeHost);
SAME_VALUE(cudaMemoryTypeDevice);
SAME_VALUE(cudaMemoryTypeManaged);
SAME_VALUE(cudaStreamCaptureStatusNone);
SAME_VALUE(cudaStreamCaptureStatusActive);
SAME_VALUE(cudaStreamCaptureStatusInvalidated);
SAME_VALUE(cudaStreamCaptureModeGlobal);
SAME_VALUE(cudaStreamCaptureModeThreadLocal);
SAME_VALUE(cudaStreamCaptureModeRelaxed);
SAME_VALUE(cudaDevAttrMaxThreadsPerBlock);
SAME_VALUE(cudaDevAttrMaxBlockDimX);
SAME_VALUE(cudaDevAttrMaxBlockDimY);
SAME_VALUE(cudaDevAttrMaxBlockDimZ);
SAME_VALUE(cudaDevAttrMaxGridDimX);
SAME_VALUE(cudaDevAttrMaxGridDimY);
SAME_VALUE(cudaDevAttrMaxGridDimZ);
SAME_VALUE(cudaDevAttrMaxSharedMemoryPerBlock);
SAME_VALUE(cudaDevAttrWarpSize);
SAME_VALUE(cudaDevAttrMaxRegistersPerBlock);
SAME_VALUE(cudaDevAttrMultiProcessorCount);
SAME_VALUE(cudaDevAttrIntegrated);
SAME_VALUE(cudaDevAttrCanMapHostMemory);
SAME_VALUE(cudaDevAttrComputeMode);
SAME_VALUE(cudaDevAttrConcurrentKernels);
SAME_VALUE(cudaDevAttrPciBusId);
SAME_VALUE(cudaDevAttrPciDeviceId);
SAME_VALUE(cudaDevAttrL2CacheSize);
SAME_VALUE(cudaDevAttrMaxThreadsPerMultiProcessor);
SAME_VALUE(cudaDevAttrUnifiedAddressing);
SAME_VALUE(cudaDevAttrPciDomainId);
SAME_VALUE(cudaDevAttrComputeCapabilityMajor);
SAME_VALUE(cudaDevAttrComputeCapabilityMinor);
SAME_VALUE(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
SAME_VALUE(cudaDevAttrManagedMemory);
SAME_VALUE(cudaDevAttrHostNativeAtomicSupported);
SAME_VALUE(cudaDevAttrCanUseHostPointerForRegisteredMem);
SAME_VALUE(cudaDevAttrCooperativeLaunch);
SAME_VALUE(cudaDevAttrMaxSharedMemoryPerBlockOptin);
SAME_VALUE(cudaDevAttrMaxBlocksPerMultiprocessor);
SAME_VALUE(cudaFuncAttributeMaxDynamicSharedMemorySize);
SAME_VALUE(cudaFuncAttributePreferredSharedMemoryCarveout);
SAME_VALUE(cudaLaunchAttributeIgnore);
SAME_VALUE(cudaLaunchAttributeCooperative);

static_assert(cudaStreamNonBlocking == 1 && cudaEventDisableTiming == 2 && cudaEventBlockingSync == 1, "flags");
static_assert(cudaHostAllocPortable == 1 && cudaHostAllocMapped == 2 && cudaHostAllocWriteCombined == 4, "flags");

namespace ours {
#include "sim/include/cuda.h"
}
SAME_VALUE(CUDA_SUCCESS);
SAME_VALUE(CUDA_ERROR_INVALID_VALUE);
SAME_VALUE(CUDA_ERROR_NOT_INITIALIZED);
SAME_VALUE(CUDA_ERROR_NO_DEVICE);
SAME_VALUE(CUDA_ERROR_INVALID_DEVICE);
SAME_SIZE(CUresult);
SAME_SIZE(CUdevice);

#if __has_include(<nccl.h>)
#include <nccl.h>
#undef NCCL_VERSION_CODE  // the installed one's may be another
namespace ours {
#include "sim/include/nccl.h"
}

SAME_SIZE(ncclUniqueId);
SAME_SIZE(ncclResult_t);
SAME_SIZE(ncclRedOp_t);
SAME_SIZE(ncclDataType_t);
SAME_VALUE(ncclSuccess);
SAME_VALUE(ncclUnhandledCudaError);
SAME_VALUE(ncclSystemError);
SAME_VALUE(ncclInternalError);
SAME_VALUE(ncclInvalidArgument);
SAME_VALUE(ncclInvalidUsage);
SAME_VALUE(ncclRemoteError);
SAME_VALUE(ncclInProgress);
SAME_VALUE(ncclSum);
SAME_VALUE(ncclProd);
SAME_VALUE(ncclMax);
SAME_VALUE(ncclMin);
SAME_VALUE(ncclAvg);
SAME_VALUE(ncclMaxRedOp);
SAME_VALUE(ncclInt8);
SAME_VALUE(ncclUint8);
SAME_VALUE(ncclInt32);
SAME_VALUE(ncclUint32);
SAME_VALUE(ncclInt64);
SAME_VALUE(ncclUint64);
SAME_VALUE(ncclFloat16);
SAME_VALUE(ncclFloat32);
SAME_VALUE(ncclFloat64);
SAME_VALUE(ncclBfloat16);
SAME_FIELD(ncclConfig_t, size, size);
SAME_FIELD(ncclConfig_t, magic, magic);
SAME_FIELD(ncclConfig_t, version, version);
SAME_FIELD(ncclConfig_t, blocking, blocking);
SAME_FIELD(ncclConfig_t, cgaClusterSize, cgaClusterSize);
SAME_FIELD(ncclConfig_t, minCTAs, minCTAs);
SAME_FIELD(ncclConfig_t, maxCTAs, maxCTAs);
SAME_FIELD(ncclConfig_t, netName, netName);
SAME_FIELD(ncclConfig_t, splitShare, splitShare);
SAME_FIELD(ncclConfig_t, trafficClass, trafficClass);
SAME_FIELD(ncclConfig_t, commName, commName);
SAME_FIELD(ncclConfig_t, collnetEnable, collnetEnable);
SAME_FIELD(ncclConfig_t, CTAPolicy, CTAPolicy);
SAME_FIELD(ncclConfig_t, shrinkShare, shrinkShare);
SAME_FIELD(ncclConfig_t, nvlsCTAs, nvlsCTAs);
SAME_FIELD(ncclConfig_t, nChannelsPerNetPeer, nChannelsPerNetPeer);
#endif

// Every 16-bit value, and every float32 that differs from one in its low bits alone: below, at and above half-way.
int main() {
  int wrong = 0;
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto bits = static_cast<unsigned short>(i);
    const float half = __half2float(__ushort_as_half(bits));
    const float bfloat = __bfloat162float(__ushort_as_bfloat16(bits));
    const float our_half = ours::__half2float(ours::__ushort_as_half(bits));
    const float our_bfloat = ours::__bfloat162float(ours::__ushort_as_bfloat16(bits));
    wrong += isnan(half) ? !isnan(our_half) : memcmp(&half, &our_half, sizeof half) != 0;
    wrong += isnan(bfloat) ? !isnan(our_bfloat) : memcmp(&bfloat, &our_bfloat, sizeof bfloat) != 0;
    for (const uint32_t low :
         {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x1fffu, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const uint32_t word = i << 16 | low;
      float value;
      memcpy(&value, &word, sizeof value);
      wrong += __half_as_ushort(__float2half_rn(value)) != ours::__half_as_ushort(ours::__float2half_rn(value));
      wrong += __bfloat16_as_ushort(__float2bfloat16_rn(value)) !=
               ours::__bfloat16_as_ushort(ours::__float2bfloat16_rn(value));
    }
  }
  if (wrong) printf("%d conversions differ\n", wrong);
  return wrong != 0;
}
