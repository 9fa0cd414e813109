// CUDA graphs of decoding steps, one a shape: launching a step's hundreds of kernels one by one takes the host longer
// than they run.
//
// Rank thread only.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
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
    bool samples = false;
    auto operator<=>(const Shape&) const = default;
  };

  // Enough that engines which serve evenly never give one up.
  static constexpr size_t kMaxGraphs = 64;

  DecodeGraphs(CudaStream& stream, Communicator& communicator, size_t max_graphs = kMaxGraphs)
      : stream_(stream), communicator_(communicator), max_graphs_(max_graphs) {}

  // Does what `launch` launches. A shape's first step launches it, so that matrix products can be tried out; the second
  // captures it; from then on the graph is replayed. Beyond `max_graphs` a new one takes the place of the one that was
  // not replayed for longest, whose shape is captured anew when it comes again.
  void Run(const Shape& shape, const std::function<void()>& launch);

  // Device memory that the driver takes for kMaxGraphs of them.
  static int64_t DeviceBytes(int num_layers);

  // The smallest number of sequences that there is a graph for, at least `num_seqs` and at most `max_num_seqs`.
  static int PaddedNumSeqs(int num_seqs, int max_num_seqs);

 private:
  // Of a shape that was seen.
  struct Entry {
    std::optional<CudaGraph> graph;
    int64_t last_run = 0;
  };

  CudaGraph Capture(const std::function<void()>& launch);
  void MakeRoom();

  CudaStream& stream_;
  Communicator& communicator_;
  const size_t max_graphs_;
  std::map<Shape, Entry> entries_;
  int64_t num_runs_ = 0;
};

}  // namespace heddle
