// The part of CUDA 13's driver API that the simulated node serves. See cuda_runtime.h.
#ifndef SYNCBN_SIM_CUDA_H
#define SYNCBN_SIM_CUDA_H

enum CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_INVALID_DEVICE = 101
};
typedef int CUdevice;

#ifndef SYNCBN_SIM_TYPES_ONLY
extern "C" {

CUresult cuInit(unsigned int flags);
CUresult cuDriverGetVersion(int *version);
CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetCount(int *count);
CUresult cuDeviceGetName(char *name, int length, CUdevice device);
CUresult cuGetErrorString(CUresult error, const char **text);
}
#endif

#endif
