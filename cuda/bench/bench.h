// What the programs here share: the library with a stream, medians of a graph's launches, and an end with a sentence.
//
// One thread. Whatever fails ends the program.
#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>

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

[[noreturn]] inline void Die(const std::string& message) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, message.c_str());
  std::exit(1);
}

inline void CheckCuda(cudaError_t error) {
  if (error != cudaSuccess) Die(cudaGetErrorString(error));
}

inline double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

inline double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The table of the library at `path`.
inline const HeddleCudaApi& OpenLibrary(const char* path) {
  void* const file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) Die(dlerror());
  const auto get_api = reinterpret_cast<decltype(&HeddleCudaGetApi)>(dlsym(file, "HeddleCudaGetApi"));
  const HeddleCudaApi* const api = get_api == nullptr ? nullptr : get_api(HEDDLE_CUDA_API_VERSION);
  if (api == nullptr) Die("the library is of another version");
  return *api;
}

constexpr int64_t kTimeoutUs = 60'000'000;

// The first device: a library's table, and a stream of it for as long as the program lives.
class Device {
 public:
  Device(const HeddleCudaApi& api, int64_t workspace_bytes, double warm_up_seconds)
      : api_(api), warm_up_seconds_(warm_up_seconds) {
    Check(api_.stream_create(0, workspace_bytes, kTimeoutUs, &stream_));
    for (HeddleCudaEvent*& event : events_) Check(api_.event_create(stream_, &event));
  }

  const HeddleCudaApi& api() const { return api_; }
  HeddleCudaStream* stream() const { return stream_; }
  void Check(HeddleCudaStatus status) const {
    if (status != kHeddleCudaOk) Die(api_.last_error());
  }

  // Of kRuns launches of a graph of what `enqueue` puts on the stream, after it was launched for the warm-up. It runs
  // once outside the graph too, where algorithms are chosen.
  double MedianSeconds(const std::function<void()>& enqueue) const {
    enqueue();
    Check(api_.stream_synchronize(stream_));
    HeddleCudaGraph* graph = nullptr;
    Check(api_.capture_begin(stream_));
    enqueue();
    Check(api_.capture_end(stream_, &graph));
    for (const double begin = Now(); Now() - begin < warm_up_seconds_;) {
      Check(api_.graph_launch(stream_, graph));
      Check(api_.stream_synchronize(stream_));
    }
    std::vector<double> seconds(kRuns);
    for (double& each : seconds) {
      Check(api_.event_record(stream_, events_[0]));
      Check(api_.graph_launch(stream_, graph));
      Check(api_.event_record(stream_, events_[1]));
      Check(api_.stream_synchronize(stream_));
      Check(api_.event_elapsed(events_[0], events_[1], &each));
    }
    Check(api_.graph_destroy(graph));
    return Median(seconds);
  }

 private:
  const HeddleCudaApi& api_;
  const double warm_up_seconds_;
  HeddleCudaStream* stream_ = nullptr;
  HeddleCudaEvent* events_[2] = {};
};

}  // namespace heddle::bench
