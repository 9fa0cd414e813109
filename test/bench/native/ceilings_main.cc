// `npm run bench:ceilings`: prints what the machine can do, one line of JSON a figure.
//
//   ceilings [rounds=40]
//
// All probes take turns in each round; median, smallest and largest over the rounds.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>

#include "ceilings.h"
#include "comm/local_communicator.h"
#include "device/buffer.h"
#include "device/host_memory.h"
#include "tensor/sharding.h"

namespace heddle::bench {
namespace {

// Beyond any cache; parts of it are within the caches.
constexpr size_t kMemoryBytes = size_t{512} << 20;
constexpr std::pair<const char*, size_t> kReadSizes[] = {
    {"read_memory", kMemoryBytes}, {"read_16MiB", size_t{16} << 20}, {"read_1MiB", size_t{1} << 20}};

// Threads that wait for each other after every piece, as ranks do after every pair of products and in the same way:
// what tensor parallelism can reach where cores are now and then slower than their neighbours.
constexpr size_t kPieceBytes = size_t{32} << 20;  // at most

double ReadInStep(int num_threads, const char* memory) {
  const size_t part = kMemoryBytes / static_cast<size_t>(num_threads);
  const auto group = CreateLocalGroup(num_threads, std::chrono::minutes(1), /*oversubscribed=*/false);
  return SumOverThreads(num_threads, [&](int thread) {
    const char* const own = memory + static_cast<size_t>(thread) * part;
    Communicator& ranks = *group[static_cast<size_t>(thread)];
    ranks.Barrier();
    const double start = SecondsNow();
    for (size_t at = 0; at < part; at += kPieceBytes) {
      ReadBytesPerSecond(own + at, std::min(kPieceBytes, part - at));
      ranks.Barrier();
    }
    return static_cast<double>(part) / (SecondsNow() - start);
  });
}

using Key = std::pair<std::string, int>;  // name, threads

void Measure(int num_threads, const char* memory, std::map<Key, std::vector<double>>& results) {
  for (const auto& [name, bytes] : kReadSizes) {
    const size_t part = bytes / static_cast<size_t>(num_threads) / 4096 * 4096;
    // What fits a cache is read once to bring it there.
    const int passes = bytes == kMemoryBytes ? 1 : 3;
    results[{name, num_threads}].push_back(SumOverThreads(num_threads, [&, bytes = bytes](int thread) {
      double rate = 0;
      for (int pass = 0; pass < passes; ++pass) {
        rate = ReadBytesPerSecond(memory + static_cast<size_t>(thread) * part, part);
      }
      return rate;
    }));
  }
  if (num_threads > 1 && num_threads <= kNumReductionSlices)
    results[{"read_memory_in_step", num_threads}].push_back(ReadInStep(num_threads, memory));
  for (const Probe& probe : Probes()) {
    if (!probe.available()) continue;
    results[{probe.name, num_threads}].push_back(
        SumOverThreads(num_threads, [&](int) { return probe.operations_per_second(); }));
  }
}

int Main(int rounds) {
  const std::shared_ptr<void> memory = AllocateHost(kMemoryBytes);
  std::memset(memory.get(), 1, kMemoryBytes);
  const int processors = NumAvailableProcessors();
  std::map<Key, std::vector<double>> results;
  for (int round = 0; round < rounds; ++round) {
    for (int num_threads = 1; num_threads <= processors; num_threads *= 2) {
      Measure(num_threads, static_cast<const char*>(memory.get()), results);
    }
  }
  for (auto& [key, values] : results) {
    const auto [smallest, largest] = std::minmax_element(values.begin(), values.end());
    const bool bytes = key.first.rfind("read", 0) == 0;
    std::cout << R"({"name":")" << key.first << R"(","threads":)" << key.second << R"(,"unit":")"
              << (bytes ? "GB/s" : "GFLOP/s") << R"(","median":)" << Median(values) * 1e-9 << R"(,"min":)"
              << *smallest * 1e-9 << R"(,"max":)" << *largest * 1e-9 << "}\n";
  }
  return 0;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) { return heddle::bench::Main(argc > 1 ? std::atoi(argv[1]) : 40); }
