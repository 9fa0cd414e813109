// CUDA graphs of decoding steps, one a shape: launching a step's hundreds of kernels one by one takes the host longer
// than they run.
//
// Rank thread only.
#pragma once

#include <compare>
#include <map>
#include <optional>

#include "comm/communicator.h"
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

  DecodeGraphs(CudaStream& stream, Communicator& communicator) : stream_(stream), communicator_(communicator) {}

  // Does what `launch` launches. A shape's first step launches it, so that matrix products can be tried out; the second
  // captures it; from then on the graph is replayed.
  template <typename Launch>
  void Run(const Shape& shape, const Launch& launch) {
    const auto [entry, is_new] = graphs_.try_emplace(shape);
    if (is_new) return launch();
    if (!entry->second) {
      communicator_.Quiesce();
      entry->second = stream_.Capture(launch);
      communicator_.Quiesce();
    }
    stream_.Launch(*entry->second);
  }

  // The smallest number of sequences that there is a graph for, at least `num_seqs` and at most `max_num_seqs`.
  static int PaddedNumSeqs(int num_seqs, int max_num_seqs);

 private:
  CudaStream& stream_;
  Communicator& communicator_;
  std::map<Shape, std::optional<CudaGraph>> graphs_;
};

}  // namespace heddle
