// CUDA graphs of decoding steps, one a shape: launching a step's hundreds of kernels one by one takes the host longer
// than they run.
//
// Rank thread only.
#pragma once

#include <compare>
#include <map>
#include <memory>

#include "device/cuda_stream.h"

namespace heddle {

class DecodeGraphs {
 public:
  // What a graph is of: all launches and addresses must follow from it.
  struct Shape {
    int num_seqs = 0;
    int max_blocks_per_seq = 0;
    auto operator<=>(const Shape&) const = default;
  };

  explicit DecodeGraphs(CudaStream& stream) : stream_(stream) {}

  // Does what `launch` launches. A shape's first step launches it, so that matrix products can be tried out; the second
  // captures it; from then on the graph is replayed.
  template <typename Launch>
  void Run(const Shape& shape, const Launch& launch) {
    const auto [entry, is_new] = graphs_.try_emplace(shape);
    if (is_new) return launch();
    if (entry->second == nullptr) entry->second = Capture(launch);
    CheckCuda(CudaApi().graph_launch(stream_.get(), entry->second.get()));
  }

  // The smallest number of sequences that there is a graph for, at least `num_seqs` and at most `max_num_seqs`.
  static int PaddedNumSeqs(int num_seqs, int max_num_seqs);

 private:
  struct Deleter {
    void operator()(HeddleCudaGraph* graph) const { CudaApi().graph_destroy(graph); }
  };
  using Graph = std::unique_ptr<HeddleCudaGraph, Deleter>;

  template <typename Launch>
  Graph Capture(const Launch& launch) {
    CheckCuda(CudaApi().capture_begin(stream_.get()));
    HeddleCudaGraph* graph = nullptr;
    try {
      launch();
    } catch (...) {
      CudaApi().capture_end(stream_.get(), &graph);
      Graph{graph}.reset();
      throw;
    }
    CheckCuda(CudaApi().capture_end(stream_.get(), &graph));
    return Graph(graph);
  }

  CudaStream& stream_;
  std::map<Shape, Graph> graphs_;
};

}  // namespace heddle
