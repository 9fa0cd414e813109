// Recorded sequences of ops.
//
// Captures are thread-local: calls that a graph cannot record (allocating, waiting for the device) are refused on the
// capturing thread, so that an op which makes one fails at once instead of being left out of the graph, while other
// threads, such as those of other ranks, go on allocating and polling events. A capture therefore begins and ends on
// one thread, and what an op sets up once (a library's handle) is set up before.
#pragma once

#include "common/stream.h"

struct HeddleCudaGraph {
  int device = 0;
  cudaGraphExec_t executable = nullptr;
};

namespace heddle::cuda {

void BeginCapture(HeddleCudaStream& stream);
// Fails when a call failed since BeginCapture; the stream captures no longer.
HeddleCudaGraph* EndCapture(HeddleCudaStream& stream);
void LaunchGraph(HeddleCudaStream& stream, const HeddleCudaGraph& graph);
void DestroyGraph(HeddleCudaGraph* graph);

// While it lives, the calling thread may do what a capture does not allow: what a library does when it starts, or loads
// a kernel, which has no place in the graph.
class CaptureExemption {
 public:
  CaptureExemption() { HEDDLE_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  ~CaptureExemption() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  CaptureExemption(const CaptureExemption&) = delete;
  CaptureExemption& operator=(const CaptureExemption&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace heddle::cuda
