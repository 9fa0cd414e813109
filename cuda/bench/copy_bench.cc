// What loading weights can reach at most: the rate of copies from page-locked memory to the device, and that of threads
// that read a file, already in the page cache, into page-locked buffers. One line of JSON each.
//
//   copy_bench [FILE] [threads=processors]
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "bench/bench.h"

namespace heddle::bench {
namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPieceBytes = int64_t{256} << 10;  // stays in a core's cache
constexpr int kRounds = 7;

char* AllocateHost(const Device& device, int64_t bytes) {
  void* memory = nullptr;
  Check(Api().allocate_host(device.stream(), bytes, &memory));
  return static_cast<char*>(memory);
}

void MeasureCopying(Device& device) {
  void* const to = device.Allocate(kBytes);
  char* const from = AllocateHost(device, kBytes);
  std::memset(from, 1, kBytes);
  std::vector<double> seconds(kRounds);
  for (double& each : seconds) {
    each = device.Seconds([&] { Check(Api().copy(device.stream(), to, from, kBytes)); });
  }
  Print({"copying page-locked memory", "2 GiB", TimesOf(seconds), kBytes});
  Check(Api().free_host(device.stream(), from));
}

void Read(int file, char* buffers, int64_t bytes, int num_threads) {
  std::atomic<int64_t> next{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < num_threads; ++thread) {
    threads.emplace_back([&, buffer = buffers + thread * kPieceBytes] {
      for (int64_t begin; (begin = next.fetch_add(kPieceBytes)) < bytes;) {
        const auto size = static_cast<size_t>(std::min(kPieceBytes, bytes - begin));
        if (pread(file, buffer, size, begin) != static_cast<ssize_t>(size)) Die("the file cannot be read");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void MeasureReading(const Device& device, const std::string& path, int num_threads) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const int64_t bytes = file < 0 ? -1 : std::min<int64_t>(kBytes, lseek(file, 0, SEEK_END));
  if (bytes <= 0) Die(path + " cannot be read");
  char* const buffers = AllocateHost(device, num_threads * kPieceBytes);
  Read(file, buffers, bytes, num_threads);  // brings it into the page cache
  std::vector<double> seconds(kRounds);
  for (double& each : seconds) {
    const double start = Now();
    Read(file, buffers, bytes, num_threads);
    each = Now() - start;
  }
  Print({"reading the file", "2 GiB", TimesOf(seconds), static_cast<double>(bytes)});
  Check(Api().free_host(device.stream(), buffers));
  close(file);
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  using namespace heddle::bench;
  const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  Device device;
  MeasureCopying(device);
  if (argc > 1) MeasureReading(device, argv[1], argc > 2 ? std::atoi(argv[2]) : processors);
  return 0;
}
