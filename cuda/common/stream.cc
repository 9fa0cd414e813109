#include "common/stream.h"

#include "common/device.h"
#include "common/memory.h"
#include "common/wait.h"

namespace heddle::cuda {
namespace {

// Gives back whatever the stream holds, however far its making came or its device is lost. The first failure, if any.
// REQUIRES: its work is over, since what is waited for here has no deadline.
cudaError_t Release(HeddleCudaStream& stream) noexcept {
  cudaError_t first = cudaSetDevice(stream.properties.device);
  const auto note = [&](cudaError_t error) {
    if (first == cudaSuccess) first = error;
  };
  note(cudaStreamSynchronize(stream.stream));
  stream.gemm_plans.reset();
  for (void* memory : {stream.workspace, static_cast<void*>(stream.counters)}) {
    if (memory != nullptr) note(cudaFreeAsync(memory, stream.stream));
  }
  note(cudaStreamSynchronize(stream.stream));
  if (stream.pool != nullptr) note(cudaMemPoolTrimTo(stream.pool, 0));
  note(cudaStreamDestroy(stream.stream));
  if (stream.pool != nullptr) note(cudaMemPoolDestroy(stream.pool));
  return first;
}

struct Destroyer {
  void operator()(HeddleCudaStream* stream) const noexcept {
    try {
      DestroyStream(stream);
    } catch (const Failure&) {
      // Whoever makes a stream is told what made that fail.
    }
  }
};

}  // namespace

HeddleCudaStream* CreateStream(int device, int64_t workspace_bytes, std::chrono::microseconds timeout) {
  Require(workspace_bytes >= 0, "stream_create: a negative size of the workspace");
  Require(timeout.count() > 0, "stream_create: a timeout of nothing");
  const DeviceProperties properties = PropertiesOf(device);
  SetDevice(device);
  auto begun = std::make_unique<HeddleCudaStream>();
  begun->properties = properties;
  begun->timeout = timeout;
  // Does not wait for the legacy default stream, which others in the process may use.
  HEDDLE_CUDA_CHECK(cudaStreamCreateWithFlags(&begun->stream, cudaStreamNonBlocking));
  std::unique_ptr<HeddleCudaStream, Destroyer> stream(begun.release());
  stream->pool = CreatePool(device);
  constexpr int64_t kCounterBytes = HeddleCudaStream::kNumCounters * int64_t{sizeof(uint32_t)};
  stream->counters = static_cast<uint32_t*>(TakeFromPool(*stream, kCounterBytes));
  Fill(*stream, stream->counters, 0, kCounterBytes);
  if (workspace_bytes > 0) stream->workspace = TakeFromPool(*stream, workspace_bytes);
  stream->workspace_bytes = workspace_bytes;
  return stream.release();
}

void DestroyStream(HeddleCudaStream* stream) {
  if (stream == nullptr) return;
  Require(stream->allocations.empty(), "stream_destroy: memory of the stream is still allocated");
  Require(!stream->capturing, "stream_destroy: the stream is capturing a graph");
  std::unique_ptr<HeddleCudaStream> owner(stream);
  try {
    SynchronizeStream(*stream);
  } catch (const Failure& failure) {
    // Work that failed is over; work that goes on still uses what the stream holds.
    if (failure.status == kHeddleCudaTimeout) {
      static_cast<void>(owner.release());
      throw;
    }
  }
  Check(Release(*stream), "stream_destroy");
}

void SynchronizeStream(const HeddleCudaStream& stream) {
  const auto query = [&] { return cudaStreamQuery(stream.stream); };
  if (WaitUntilReady(query, stream.timeout, "cudaStreamQuery")) return;
  const auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(stream.timeout);
  Fail(kHeddleCudaTimeout, "device " + std::to_string(stream.properties.device) +
                               " did not end its work within the limit of " + std::to_string(limit.count()) + " ms");
}

}  // namespace heddle::cuda
