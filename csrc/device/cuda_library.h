// The CUDA library, libheddle_cuda.so, opened at run time: a machine without it, or without a GPU, loses nothing else.
//
// It is looked for where HEDDLE_CUDA_LIBRARY says, beside the module that holds this code, and in ../cuda from there.
// Thread-safe.
#pragma once

#include <string>

#include "heddle_cuda.h"

namespace heddle {

// The library's table; opens it at the first call. Fails with kInvalidArgument, naming what is missing, when there is
// no library of this version.
const HeddleCudaApi& CudaApi();

// How many devices there are; 0 without a library or a driver, with the reason in `reason`.
int NumCudaDevices(std::string* reason = nullptr);

// Turns what a function of the table answered into an Error: kInsufficientMemory for memory of the device, kCommTimeout
// for a collective, kRankFailed where the device or a library failed, kInternal for arguments of ours.
void CheckCuda(HeddleCudaStatus status);

}  // namespace heddle
