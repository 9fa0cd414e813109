// Ranks as threads of the test's process, all on device 0, with a stream each.
//
// Body functions run on the ranks' threads, where they throw instead of recording expectations, which only the test's
// own thread may do.
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_testing.h"
#include "rank_threads.h"

namespace heddle::test {

// What ranks on one device need, read when CUDA and NCCL are used for the first time: see HeddleCudaNcclOptions.
[[maybe_unused]] inline const bool kRanksShareDevice = setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0) == 0 &&
                                                       setenv("CUDA_MODULE_LOADING", "EAGER", 0) == 0 &&
                                                       setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0) == 0;

class Ranks {
 public:
  explicit Ranks(int size) {
    for (int rank = 0; rank < size; ++rank) streams_.push_back(std::make_unique<TestStream>(int64_t{32} << 20));
  }
  virtual ~Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int size() const { return static_cast<int>(streams_.size()); }
  TestStream& stream(int rank) const { return *streams_[static_cast<size_t>(rank)]; }

  // body(rank) on a thread for each rank. The first exception breaks the group, so that no rank waits for the one that
  // threw, and comes out here.
  void Run(const std::function<void(int)>& body) {
    RunOnRanks(size(), body, [this] { BreakGroup(); });
  }

 private:
  virtual void BreakGroup() = 0;

  std::vector<std::unique_ptr<TestStream>> streams_;
};

// What an EXPECT would be on a rank's thread.
inline void Must(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

// A recorded graph, destroyed at the end.
class TestGraph {
 public:
  TestGraph(TestStream& stream, const std::function<void()>& body) : stream_(stream) {
    MustSucceed(Api().capture_begin(stream.get()), "capture_begin");
    body();
    MustSucceed(Api().capture_end(stream.get(), &graph_), "capture_end");
  }
  ~TestGraph() { Api().graph_destroy(graph_); }
  TestGraph(const TestGraph&) = delete;
  TestGraph& operator=(const TestGraph&) = delete;

  void Launch() { MustSucceed(Api().graph_launch(stream_.get(), graph_), "graph_launch"); }

 private:
  TestStream& stream_;
  HeddleCudaGraph* graph_ = nullptr;
};

// One vector a rank.
using RankValues = std::vector<std::vector<float>>;

// Numbers as `dtype` has them, different for each rank.
inline RankValues RandomRankValues(int size, HeddleCudaDType dtype, size_t count, uint64_t seed) {
  RankValues values;
  for (int rank = 0; rank < size; ++rank) {
    values.push_back(Rounded(dtype, RandomFloats(count, seed * 8 + static_cast<uint64_t>(rank))));
  }
  return values;
}

// The sum over ranks in float32, joined in a balanced binary tree.
inline std::vector<float> TreeSum(RankValues values) {
  for (size_t step = 1; step < values.size(); step *= 2) {
    for (size_t rank = 0; rank < values.size(); rank += 2 * step) {
      for (size_t i = 0; i < values[rank].size(); ++i) values[rank][i] += values[rank + step][i];
    }
  }
  return values[0];
}

inline std::vector<double> Doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

}  // namespace heddle::test
