// What the programs here share: the library with a stream, times of a graph's launches, memory, and a line a figure.
//
// Whatever fails ends the program with a sentence.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "heddle_cuda.h"

namespace heddle::bench {

inline constexpr int kRuns = 25;
inline constexpr double kWarmUpSeconds = 0.2;
inline constexpr int64_t kTimeoutUs = 60'000'000;
inline constexpr int64_t kWorkspaceBytes = int64_t{256} << 20;
inline constexpr HeddleCudaDType kBf16 = kHeddleCudaBFloat16;
inline constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;

// From any thread: others may wait for this one.
[[noreturn]] inline void Die(const std::string& message) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, message.c_str());
  std::_Exit(1);
}

inline void CheckCuda(cudaError_t error) {
  if (error != cudaSuccess) Die(cudaGetErrorString(error));
}

inline const HeddleCudaApi& Api() {
  static const HeddleCudaApi& api = *HeddleCudaGetApi(HEDDLE_CUDA_API_VERSION);
  return api;
}

inline void Check(HeddleCudaStatus status) {
  if (status != kHeddleCudaOk) Die(Api().last_error());
}

inline double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of the same work, measured again and again.
struct Times {
  double median;
  double least;
  double most;
};

inline Times TimesOf(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

inline Times operator/(const Times& times, double count) {
  return {times.median / count, times.least / count, times.most / count};
}

inline HeddleCudaWeight DenseWeight(const HeddleCudaMatrix& values) {
  return {values, nullptr, nullptr, 0, kHeddleCudaKeepX, 0};
}

enum class Unit { kGigabytes, kTeraflops };

struct Figure {
  std::string op;
  std::string size;
  Times times;
  double amount;       // bytes or operations in that time
  double ceiling = 0;  // as many a second, at most; 0: there is no saying
  Unit unit = Unit::kGigabytes;
  double other = 0;  // seconds of another way to the same; 0: there is none
};

// A line of JSON such as
//   {"op": "embedding", "size": "64", "microseconds": 2.31, "from": 2.30, "to": 2.35, "rate": 681.2, "unit": "GB/s",
//    "share": 0.2211}
// where the rate is of the median time, and the share that of the ceiling, left out where there is none; last, where
// there is another way, how many times as fast as that it is, as "ratio".
inline void Print(const Figure& figure) {
  const double rate = figure.amount / figure.times.median;
  const bool bytes = figure.unit == Unit::kGigabytes;
  std::printf(
      R"({"op": "%s", "size": "%s", "microseconds": %.3f, "from": %.3f, "to": %.3f, "rate": %.2f, "unit": "%s")",
      figure.op.c_str(), figure.size.c_str(), figure.times.median * 1e6, figure.times.least * 1e6,
      figure.times.most * 1e6, rate * (bytes ? 1e-9 : 1e-12), bytes ? "GB/s" : "TFLOP/s");
  if (figure.ceiling > 0) std::printf(R"(, "share": %.4f)", rate / figure.ceiling);
  if (figure.other > 0) std::printf(R"(, "ratio": %.3f)", figure.other / figure.times.median);
  std::printf("}\n");
  std::fflush(stdout);
}

// A stream of the first device for as long as the program lives. One thread.
class Device {
 public:
  Device() {
    Check(Api().stream_create(0, kWorkspaceBytes, kTimeoutUs, &stream_));
    for (HeddleCudaEvent*& event : events_) Check(Api().event_create(stream_, &event));
  }

  HeddleCudaStream* stream() const { return stream_; }

  // Of what `enqueue` puts on the stream `calls` times: of kRuns launches of a graph of all, shared out, after it was
  // launched for the warm-up. It runs once outside the graph too, where algorithms are chosen.
  Times Measure(const std::function<void()>& enqueue, int calls = 1) const {
    enqueue();
    Check(Api().stream_synchronize(stream_));
    HeddleCudaGraph* graph = nullptr;
    Check(Api().capture_begin(stream_));
    for (int call = 0; call < calls; ++call) enqueue();
    Check(Api().capture_end(stream_, &graph));
    for (const double begin = Now(); Now() - begin < kWarmUpSeconds;) {
      Check(Api().graph_launch(stream_, graph));
      Check(Api().stream_synchronize(stream_));
    }
    std::vector<double> seconds(kRuns);
    for (double& each : seconds) each = Seconds([&] { Check(Api().graph_launch(stream_, graph)); });
    Check(Api().graph_destroy(graph));
    return TimesOf(seconds) / calls;
  }

  // From one event to another around what `enqueue` puts on the stream.
  double Seconds(const std::function<void()>& enqueue) const {
    double seconds = 0;
    Check(Api().event_record(stream_, events_[0]));
    enqueue();
    Check(Api().event_record(stream_, events_[1]));
    Check(Api().stream_synchronize(stream_));
    Check(Api().event_elapsed(events_[0], events_[1], &seconds));
    return seconds;
  }

  // Zeros.
  void* Allocate(int64_t bytes) {
    void* memory = nullptr;
    Check(Api().allocate(stream_, bytes, &memory));
    Check(Api().fill(stream_, memory, 0, bytes));
    memory_.push_back(memory);
    return memory;
  }
  // Normally distributed, without gaps between rows.
  HeddleCudaMatrix Random(int64_t rows, int64_t size, float deviation = 1, HeddleCudaDType dtype = kBf16) {
    const HeddleCudaMatrix matrix = {Allocate(rows * size * (dtype == kF32 ? 4 : 2)), dtype, rows, size, size};
    Check(Api().fill_random(stream_, matrix, ++seed_, deviation));
    return matrix;
  }
  template <typename T>
  T* Array(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    void* const memory = Allocate(bytes);
    Check(Api().copy(stream_, memory, values.data(), bytes));
    Check(Api().stream_synchronize(stream_));
    return static_cast<T*>(memory);
  }
  // What is not freed lives as long as the program.
  void FreeAll() {
    for (void* memory : memory_) Check(Api().free(stream_, memory));
    memory_.clear();
  }

 private:
  HeddleCudaStream* stream_ = nullptr;
  HeddleCudaEvent* events_[2] = {};
  std::vector<void*> memory_;
  uint64_t seed_ = 0;
};

}  // namespace heddle::bench
