#include "common/memory.h"

#include <array>
#include <atomic>
#include <limits>

namespace heddle::cuda {
namespace {

// What the streams of this process have allocated of each device. A process-wide number cannot live in a stream.
constexpr int kMaxDevices = 128;
std::array<std::atomic<int64_t>, kMaxDevices> allocated_bytes{};

std::atomic<int64_t>& AllocatedOn(int device) { return allocated_bytes.at(static_cast<size_t>(device)); }

}  // namespace

cudaMemPool_t CreatePool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.handleTypes = cudaMemHandleTypeNone;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  HEDDLE_CUDA_CHECK(cudaMemPoolCreate(&pool, &properties));
  // By default a pool returns unused memory to the device whenever the stream is waited for, and the next allocation
  // has to map memory again.
  uint64_t threshold = std::numeric_limits<uint64_t>::max();
  const cudaError_t error = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold);
  if (error != cudaSuccess) cudaMemPoolDestroy(pool);
  Check(error, "cudaMemPoolSetAttribute");
  return pool;
}

void* TakeFromPool(const HeddleCudaStream& stream, int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMallocFromPoolAsync(&memory, static_cast<size_t>(bytes), stream.pool, stream.stream);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    Fail(kHeddleCudaOutOfMemory, "device " + std::to_string(stream.properties.device) + " has no room for " +
                                     std::to_string(bytes) + " more bytes");
  }
  Check(error, "cudaMallocFromPoolAsync");
  return memory;
}

void* Allocate(HeddleCudaStream& stream, int64_t bytes) {
  Require(bytes >= 0, "allocate: a negative size");
  // It would become memory of the graph.
  Require(!stream.capturing, "allocate: the stream is capturing a graph");
  if (bytes == 0) return nullptr;
  void* memory = TakeFromPool(stream, bytes);
  try {
    stream.allocations.emplace(memory, bytes);
  } catch (...) {
    cudaFreeAsync(memory, stream.stream);
    throw;
  }
  AllocatedOn(stream.properties.device) += bytes;
  return memory;
}

void Free(HeddleCudaStream& stream, void* memory) {
  if (memory == nullptr) return;
  Require(!stream.capturing, "free: the stream is capturing a graph");
  const auto allocation = stream.allocations.find(memory);
  Require(allocation != stream.allocations.end(), "free: not allocated from this stream, or freed already");
  // Gone even if the call fails: the device's context is lost then, and its memory with it.
  AllocatedOn(stream.properties.device) -= allocation->second;
  stream.allocations.erase(allocation);
  HEDDLE_CUDA_CHECK(cudaFreeAsync(memory, stream.stream));
}

int64_t AllocatedBytes(const HeddleCudaStream& stream) { return AllocatedOn(stream.properties.device); }

void* AllocateHost(int64_t bytes) {
  Require(bytes >= 0, "allocate_host: a negative size");
  if (bytes == 0) return nullptr;
  void* memory = nullptr;
  HEDDLE_CUDA_CHECK(cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault));
  return memory;
}

void FreeHost(void* memory) {
  if (memory != nullptr) HEDDLE_CUDA_CHECK(cudaFreeHost(memory));
}

void Copy(HeddleCudaStream& stream, void* to, const void* from, int64_t bytes) {
  Require(bytes >= 0, "copy: a negative size");
  if (bytes == 0) return;
  Require(to != nullptr && from != nullptr, "copy: null memory");
  HEDDLE_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream.stream));
}

void Copy2d(HeddleCudaStream& stream, void* to, int64_t to_stride, const void* from, int64_t from_stride,
            int64_t row_bytes, int64_t num_rows) {
  Require(row_bytes >= 0 && num_rows >= 0, "copy_2d: a negative size");
  if (row_bytes == 0 || num_rows == 0) return;
  if (num_rows == 1) return Copy(stream, to, from, row_bytes);
  Require(to_stride >= row_bytes && from_stride >= row_bytes, "copy_2d: rows overlap");
  if (to_stride == row_bytes && from_stride == row_bytes) return Copy(stream, to, from, row_bytes * num_rows);
  Require(to != nullptr && from != nullptr, "copy_2d: null memory");
  HEDDLE_CUDA_CHECK(cudaMemcpy2DAsync(to, static_cast<size_t>(to_stride), from, static_cast<size_t>(from_stride),
                                      static_cast<size_t>(row_bytes), static_cast<size_t>(num_rows), cudaMemcpyDefault,
                                      stream.stream));
}

void Fill(HeddleCudaStream& stream, void* memory, int value, int64_t bytes) {
  Require(bytes >= 0, "fill: a negative size");
  if (bytes == 0) return;
  Require(memory != nullptr, "fill: null memory");
  HEDDLE_CUDA_CHECK(cudaMemsetAsync(memory, value, static_cast<size_t>(bytes), stream.stream));
}

}  // namespace heddle::cuda
