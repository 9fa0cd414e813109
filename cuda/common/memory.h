// Memory of a stream: what the table's functions of the same names do. Sizes are in bytes; zero bytes are nothing.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

void* Allocate(HeddleCudaStream& stream, int64_t bytes);
void Free(HeddleCudaStream& stream, void* memory);
int64_t AllocatedBytes(const HeddleCudaStream& stream);

// Both may wait for the device to become idle, and so for other ranks on it: meant for set-up and end.
void* AllocateHost(int64_t bytes);
void FreeHost(void* memory);

void Copy(HeddleCudaStream& stream, void* to, const void* from, int64_t bytes);
void Copy2d(HeddleCudaStream& stream, void* to, int64_t to_stride, const void* from, int64_t from_stride,
            int64_t row_bytes, int64_t num_rows);
void Fill(HeddleCudaStream& stream, void* memory, int value, int64_t bytes);

// Of CreateStream and DestroyStream: a pool that keeps what it is given back, and memory of it that nobody counts.
cudaMemPool_t CreatePool(int device);
void* TakeFromPool(const HeddleCudaStream& stream, int64_t bytes);

}  // namespace heddle::cuda
