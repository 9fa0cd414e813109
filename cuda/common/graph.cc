#include "common/graph.h"

#include <type_traits>

#include "common/device.h"

namespace heddle::cuda {
namespace {

struct GraphDestroyer {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDestroyer>;

OwnedGraph TakeGraph(HeddleCudaStream& stream) {
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(stream.stream, &graph);
  OwnedGraph owner(graph);
  if (error != cudaErrorStreamCaptureWrongThread) stream.capturing = false;
  const bool only_spoiled = error == cudaSuccess || error == cudaErrorStreamCaptureInvalidated;
  if (stream.capture_spoiled && only_spoiled) {
    cudaGetLastError();
    Fail(kHeddleCudaFailed, "capture_end: a call that failed has spoiled the capture");
  }
  Check(error, "cudaStreamEndCapture");
  return owner;
}

}  // namespace

void BeginCapture(HeddleCudaStream& stream) {
  Require(!stream.capturing, "capture_begin: the stream is capturing already");
  HEDDLE_CUDA_CHECK(cudaStreamBeginCapture(stream.stream, cudaStreamCaptureModeThreadLocal));
  stream.capturing = true;
  stream.capture_spoiled = false;
}

HeddleCudaGraph* EndCapture(HeddleCudaStream& stream) {
  Require(stream.capturing, "capture_end: the stream is not capturing");
  const OwnedGraph recorded = TakeGraph(stream);
  auto graph = std::make_unique<HeddleCudaGraph>();
  graph->device = stream.properties.device;
  HEDDLE_CUDA_CHECK(cudaGraphInstantiate(&graph->executable, recorded.get(), 0));
  // Else the first launch does it.
  const cudaError_t error = cudaGraphUpload(graph->executable, stream.stream);
  if (error != cudaSuccess) cudaGraphExecDestroy(graph->executable);
  Check(error, "cudaGraphUpload");
  return graph.release();
}

void LaunchGraph(HeddleCudaStream& stream, const HeddleCudaGraph& graph) {
  Require(graph.device == stream.properties.device, "graph_launch: the graph is of another device");
  HEDDLE_CUDA_CHECK(cudaGraphLaunch(graph.executable, stream.stream));
}

void DestroyGraph(HeddleCudaGraph* graph) {
  if (graph == nullptr) return;
  const std::unique_ptr<HeddleCudaGraph> owner(graph);
  SetDevice(graph->device);
  HEDDLE_CUDA_CHECK(cudaGraphExecDestroy(graph->executable));
}

}  // namespace heddle::cuda
