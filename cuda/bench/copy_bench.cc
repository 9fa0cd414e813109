// What loading weights can reach at most: the rate of copies from page-locked memory to the device, and that of threads
// that read a file, already in the page cache, into page-locked buffers. One line of JSON each: the median of the
// rounds with their range.
//
//   copy_bench [device=0] [threads=processors] [FILE]
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "heddle_cuda.h"

namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPieceBytes = int64_t{256} << 10;  // stays in a core's cache
constexpr int kRounds = 7;
constexpr int64_t kTimeoutUs = 60'000'000;

const HeddleCudaApi& api = *HeddleCudaGetApi(HEDDLE_CUDA_API_VERSION);

void Must(HeddleCudaStatus status) {
  if (status == kHeddleCudaOk) return;
  std::fprintf(stderr, "%s\n", api.last_error());
  std::exit(1);
}

char* AllocateHost(HeddleCudaStream* stream, int64_t bytes) {
  void* memory = nullptr;
  Must(api.allocate_host(stream, bytes, &memory));
  return static_cast<char*>(memory);
}

// Prints the rate of `move`, which moves `bytes`.
void Measure(const char* name, int64_t bytes, const std::function<void()>& move) {
  std::vector<double> rates;
  for (int round = -1; round < kRounds; ++round) {  // the first touches the memory
    const auto start = std::chrono::steady_clock::now();
    move();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (round >= 0) rates.push_back(static_cast<double>(bytes) / seconds.count() * 1e-9);
  }
  std::sort(rates.begin(), rates.end());
  std::printf("{\"name\":\"%s\",\"gbPerSecond\":%.2f,\"from\":%.2f,\"to\":%.2f}\n", name, rates[kRounds / 2],
              rates.front(), rates.back());
}

void MeasureCopying(HeddleCudaStream* stream) {
  void* to = nullptr;
  Must(api.allocate(stream, kBytes, &to));
  char* const from = AllocateHost(stream, kBytes);
  std::memset(from, 1, kBytes);
  Measure("copy_page_locked", kBytes, [&] {
    Must(api.copy(stream, to, from, kBytes));
    Must(api.stream_synchronize(stream));
  });
  Must(api.free_host(stream, from));
  Must(api.free(stream, to));
}

void MeasureReading(HeddleCudaStream* stream, const char* path, int num_threads) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const int64_t bytes = file < 0 ? -1 : std::min<int64_t>(kBytes, lseek(file, 0, SEEK_END));
  if (bytes <= 0) {
    std::perror(path);
    std::exit(1);
  }
  char* const buffers = AllocateHost(stream, num_threads * kPieceBytes);
  Measure("read_file", bytes, [&] {
    std::atomic<int64_t> next{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < num_threads; ++thread) {
      threads.emplace_back([&, buffer = buffers + thread * kPieceBytes] {
        for (int64_t begin; (begin = next.fetch_add(kPieceBytes)) < bytes;) {
          const auto size = static_cast<size_t>(std::min(kPieceBytes, bytes - begin));
          if (pread(file, buffer, size, begin) == static_cast<ssize_t>(size)) continue;
          std::perror(path);
          std::exit(1);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  Must(api.free_host(stream, buffers));
  close(file);
}

}  // namespace

int main(int argc, char** argv) {
  const int device = argc > 1 ? std::atoi(argv[1]) : 0;
  const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int num_threads = argc > 2 ? std::atoi(argv[2]) : processors;
  HeddleCudaStream* stream = nullptr;
  Must(api.stream_create(device, 0, kTimeoutUs, &stream));
  MeasureCopying(stream);
  if (argc > 3) MeasureReading(stream, argv[3], num_threads);
  Must(api.stream_destroy(stream));
}
