// The devices of this machine.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// Fails with kHeddleCudaUnavailable where no device can be used.
int32_t DeviceCount();

HeddleCudaDeviceInfo DeviceInfo(int device);

// Fails with kHeddleCudaUnavailable for a device that these kernels cannot run on.
DeviceProperties PropertiesOf(int device);

// Makes `device` the calling thread's. Costs some nanoseconds where it is already, so everything that touches a device
// asks for it: a thread may serve several streams, and others in the process choose devices too.
inline void SetDevice(int device) { HEDDLE_CUDA_CHECK(cudaSetDevice(device)); }

}  // namespace heddle::cuda
