// What loading weights can reach at most: the rate of copies from page-locked memory to the device, and that of threads
// that read a file, already in the page cache, into page-locked buffers. One line of JSON each: the median of the
// rounds with their range.
//
//   copy_bench [threads=processors]
#include <barrier>
#include <cstring>
#include <thread>

#include "bench/bench.h"

namespace heddle::bench {
namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPieceBytes = int64_t{256} << 10;  // stays in a core's cache
constexpr int kRounds = 7;
constexpr int64_t kTimeoutUs = 60'000'000;

char* AllocateHost(const Device& device, int64_t bytes) {
  void* memory = nullptr;
  Check(Api().allocate_host(device.stream(), bytes, &memory));
  return static_cast<char*>(memory);
}

// Prints the rate of `copy`, which moves kBytes.
void Measure(const Device& device, const char* name, const std::function<void()>& copy) {
  device.Seconds(copy);  // touches the memory
  std::vector<double> seconds(kRounds);
  for (double& each : seconds) each = device.Seconds(copy);
  Print({name, "2 GiB", TimesOf(seconds), kBytes});
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
  for (int64_t round = 0; round < num_rounds; ++round) {
    Check(Api().event_wait(copied[round % 2], 60'000'000));
    fill.arrive_and_wait();
    fill.arrive_and_wait();
    Check(Api().copy(stream, to + round * round_bytes, buffers[round % 2], round_bytes));
    Check(Api().event_record(stream, copied[round % 2]));
  }
  for (std::thread& thread : threads) thread.join();
  const int64_t rest = kBytes - num_rounds * round_bytes;
  if (rest > 0) Check(Api().copy(stream, to + kBytes - rest, buffers[0], rest));
}

void Run(int num_threads) {
  Device device;
  HeddleCudaStream* const stream = device.stream();
  auto* const to = static_cast<char*>(device.Allocate(kBytes));

  char* const locked = AllocateHost(device, kBytes);
  std::memset(locked, 1, kBytes);
  Measure(device, "copying page-locked memory", [&] { Check(Api().copy(stream, to, locked, kBytes)); });
  Check(Api().free_host(stream, locked));

  const std::vector<char> pageable(kBytes, 1);
  char* const buffers[] = {AllocateHost(device, num_threads * kPieceBytes),
                           AllocateHost(device, num_threads * kPieceBytes)};
  HeddleCudaEvent* copied[2];
  for (HeddleCudaEvent*& event : copied) Check(Api().event_create(stream, &event));
  Measure(device, "copying pageable memory in rounds",
          [&] { CopyInRounds(stream, to, pageable.data(), num_threads, buffers, copied); });
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  heddle::bench::Run(argc > 1 ? std::atoi(argv[1]) : processors);
  return 0;
}
