// What copying to the device can reach: from page-locked memory on one stream, and from pageable memory, where threads
// fill one set of page-locked buffers while those filled before are copied. One line of JSON each.
//
//   copy_bench [device=0] [threads=processors]
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "heddle_cuda.h"

namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPieceBytes = int64_t{4} << 20;
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

HeddleCudaEvent* CreateEvent(HeddleCudaStream* stream) {
  HeddleCudaEvent* event = nullptr;
  Must(api.event_create(stream, &event));
  return event;
}

// Prints the median rate of `copy`, which moves kBytes.
void Measure(HeddleCudaStream* stream, const char* name, const std::function<void()>& copy) {
  HeddleCudaEvent* const begin = CreateEvent(stream);
  HeddleCudaEvent* const end = CreateEvent(stream);
  std::vector<double> rates;
  for (int round = -1; round < kRounds; ++round) {  // the first touches the memory
    double seconds = 0;
    Must(api.event_record(stream, begin));
    copy();
    Must(api.event_record(stream, end));
    Must(api.stream_synchronize(stream));
    Must(api.event_elapsed(begin, end, &seconds));
    if (round >= 0) rates.push_back(static_cast<double>(kBytes) / seconds * 1e-9);
  }
  Must(api.event_destroy(begin));
  Must(api.event_destroy(end));
  std::sort(rates.begin(), rates.end());
  std::printf("{\"name\":\"%s\",\"gbPerSecond\":%.2f,\"from\":%.2f,\"to\":%.2f}\n", name, rates[kRounds / 2],
              rates.front(), rates.back());
}

// Each thread fills a buffer of its own; the main thread then has all of them copied, and waits only for the copies out
// of the buffers to be filled next.
void CopyInRounds(HeddleCudaStream* stream, char* to, const char* from, int num_threads, char* const (&buffers)[2],
                  HeddleCudaEvent* const (&copied)[2]) {
  const int64_t round_bytes = num_threads * kPieceBytes;
  const int64_t num_rounds = kBytes / round_bytes;
  std::barrier fill(num_threads + 1);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < num_threads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t round = 0; round < num_rounds; ++round) {
        fill.arrive_and_wait();
        std::memcpy(buffers[round % 2] + thread * kPieceBytes, from + round * round_bytes + thread * kPieceBytes,
                    kPieceBytes);
        fill.arrive_and_wait();
      }
    });
  }
  for (int64_t round = 0; round < num_rounds; ++round) {
    Must(api.event_wait(copied[round % 2], 60'000'000));
    fill.arrive_and_wait();
    fill.arrive_and_wait();
    Must(api.copy(stream, to + round * round_bytes, buffers[round % 2], round_bytes));
    Must(api.event_record(stream, copied[round % 2]));
  }
  for (std::thread& thread : threads) thread.join();
  const int64_t rest = kBytes - num_rounds * round_bytes;
  if (rest > 0) Must(api.copy(stream, to + kBytes - rest, buffers[0], rest));
}

}  // namespace

int main(int argc, char** argv) {
  const int device = argc > 1 ? std::atoi(argv[1]) : 0;
  const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int num_threads = argc > 2 ? std::atoi(argv[2]) : processors;
  HeddleCudaStream* stream = nullptr;
  Must(api.stream_create(device, 0, kTimeoutUs, &stream));
  void* to = nullptr;
  Must(api.allocate(stream, kBytes, &to));

  char* const locked = AllocateHost(stream, kBytes);
  std::memset(locked, 1, kBytes);
  Measure(stream, "copy_page_locked", [&] { Must(api.copy(stream, to, locked, kBytes)); });
  Must(api.free_host(stream, locked));

  const std::vector<char> pageable(kBytes, 1);
  char* const buffers[] = {AllocateHost(stream, num_threads * kPieceBytes),
                           AllocateHost(stream, num_threads * kPieceBytes)};
  HeddleCudaEvent* const copied[] = {CreateEvent(stream), CreateEvent(stream)};
  Measure(stream, "copy_in_rounds",
          [&] { CopyInRounds(stream, static_cast<char*>(to), pageable.data(), num_threads, buffers, copied); });

  for (HeddleCudaEvent* event : copied) Must(api.event_destroy(event));
  for (char* buffer : buffers) Must(api.free_host(stream, buffer));
  Must(api.free(stream, to));
  Must(api.stream_destroy(stream));
}
