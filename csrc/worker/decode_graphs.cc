#include "worker/decode_graphs.h"

#include <algorithm>

#include "base/rounding.h"

namespace heddle {

void DecodeGraphs::Run(const Shape& shape, const std::function<void()>& launch) {
  const auto [it, is_new] = entries_.try_emplace(shape);
  if (is_new) return launch();
  Entry& entry = it->second;
  if (!entry.graph) entry.graph = Capture(launch);
  entry.last_run = ++num_runs_;
  stream_.Launch(*entry.graph);
}

CudaGraph DecodeGraphs::Capture(const std::function<void()>& launch) {
  communicator_.Quiesce();
  const auto num_graphs =
      std::count_if(entries_.begin(), entries_.end(), [](const auto& entry) { return entry.second.graph.has_value(); });
  if (num_graphs == static_cast<std::ptrdiff_t>(max_graphs_)) MakeRoom();
  CudaGraph graph = stream_.Capture(launch);
  communicator_.Quiesce();
  return graph;
}

void DecodeGraphs::MakeRoom() {
  stream_.Synchronize();  // it may be running
  const auto stalest = std::min_element(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
    if (a.second.graph.has_value() != b.second.graph.has_value()) return a.second.graph.has_value();
    return a.second.last_run < b.second.last_run;
  });
  stalest->second.graph.reset();
}

int64_t DecodeGraphs::DeviceBytes(int num_layers) {
  // Measured on an H100 with CUDA 13: 64 graphs of 50 to 1,000 kernels take 2.8 to 3.2 KB a kernel.
  constexpr int64_t kBytesPerKernel = 3200;
  constexpr int64_t kKernelsPerLayer = 12;  // of the models with most norms
  constexpr int64_t kOtherKernels = 16;
  return static_cast<int64_t>(kMaxGraphs) * (num_layers * kKernelsPerLayer + kOtherKernels) * kBytesPerKernel;
}

int DecodeGraphs::PaddedNumSeqs(int num_seqs, int max_num_seqs) {
  constexpr int kFine = 8;     // up to here powers of two
  constexpr int kMedium = 64;  // up to here multiples of 8, then of 16
  int padded = 1;
  if (num_seqs <= kFine) {
    while (padded < num_seqs) padded *= 2;
  } else {
    padded = static_cast<int>(RoundUp(num_seqs, num_seqs <= kMedium ? 8 : 16));
  }
  return std::min(padded, max_num_seqs);
}

}  // namespace heddle
