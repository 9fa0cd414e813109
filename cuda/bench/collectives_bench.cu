// An all-reduce of bfloat16 in a CUDA graph, NCCL's and the one-shot kernel's, alone and with the AddRmsNorm that
// follows in a decoder: a kernel of its own after NCCL's, part of the one-shot kernel. And the gathering of logits. One
// line of JSON a figure, whose rate is that of the message.
//
//   collectives_bench [DEVICES=1]
//
// Ranks are threads of this process. With 2 and 4 ranks on one device, the default, what is measured is latency and the
// devices' own work, not links; with more devices ranks go round them. Rows that are normed have 4096 elements, so that
// 8 KiB is one token. Graphs hold 20 calls; the slowest rank counts.
#include <barrier>
#include <thread>

#include "bench/bench.h"

namespace heddle::bench {
namespace {

constexpr int kCallsPerGraph = 20;
constexpr int kWarmUps = 5;
constexpr int kLaunches = 20;
constexpr int64_t kTimeoutUs = 20'000'000;
constexpr int64_t kMaxOneShotBytes = 1 << 20;
constexpr int64_t kHidden = 4096;
constexpr int64_t kVocabSize = 128256;
constexpr int64_t kGatheredBytes = 64 * kVocabSize * 4;
constexpr int64_t kSmallest = 8 << 10;
constexpr int64_t kLargest = 16 << 20;

struct Rank {
  HeddleCudaStream* stream = nullptr;
  HeddleCudaCommunicator* comm = nullptr;
  void* x = nullptr;
  void* gathered = nullptr;
  float* residual = nullptr;
  float* weight = nullptr;
};

void OnThreads(std::vector<Rank>& ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks.size(); ++rank) threads.emplace_back(body, static_cast<int>(rank));
  for (std::thread& thread : threads) thread.join();
}

// Of one of the calls that call(rank) launches.
Times Measure(std::vector<Rank>& ranks, const std::function<void(int)>& call) {
  std::barrier together(static_cast<std::ptrdiff_t>(ranks.size()));
  std::vector<Times> times(ranks.size());
  OnThreads(ranks, [&](int rank) {
    HeddleCudaStream* stream = ranks[static_cast<size_t>(rank)].stream;
    HeddleCudaGraph* graph = nullptr;
    Check(Api().capture_begin(stream));
    for (int i = 0; i < kCallsPerGraph; ++i) call(rank);
    Check(Api().capture_end(stream, &graph));
    together.arrive_and_wait();  // making a graph may wait for the device, and so for a rank that waits for this one
    std::vector<HeddleCudaEvent*> events(kLaunches + 1);
    for (HeddleCudaEvent*& event : events) Check(Api().event_create(stream, &event));
    for (int i = 0; i < kWarmUps; ++i) Check(Api().graph_launch(stream, graph));
    Check(Api().stream_synchronize(stream));
    together.arrive_and_wait();
    Check(Api().event_record(stream, events[0]));
    for (int i = 0; i < kLaunches; ++i) {
      Check(Api().graph_launch(stream, graph));
      Check(Api().event_record(stream, events[static_cast<size_t>(i) + 1]));
    }
    Check(Api().event_wait(events.back(), kTimeoutUs));
    std::vector<double> seconds(kLaunches);
    for (size_t i = 0; i < seconds.size(); ++i) Check(Api().event_elapsed(events[i], events[i + 1], &seconds[i]));
    times[static_cast<size_t>(rank)] = TimesOf(seconds) / kCallsPerGraph;
    for (HeddleCudaEvent* event : events) Check(Api().event_destroy(event));
    Check(Api().graph_destroy(graph));
    together.arrive_and_wait();
  });
  return *std::max_element(times.begin(), times.end(),
                           [](const Times& a, const Times& b) { return a.median < b.median; });
}

// Whether NCCL serves these ranks; says why not.
bool ConnectNccl(std::vector<Rank>& ranks, int num_devices) {
  char id[128];
  if (Api().comm_unique_id(id) != kHeddleCudaOk) {
    std::fprintf(stderr, "no NCCL: %s\n", Api().last_error());
    return false;
  }
  const int size = static_cast<int>(ranks.size());
  const int ranks_on_device = (size + num_devices - 1) / num_devices;
  const HeddleCudaNcclOptions options{ranks_on_device, -1, -1, -1, -1, -1, -1, -1, -1, -1, nullptr, nullptr};
  for (int rank = 0; rank < size; ++rank) {
    Rank& of = ranks[static_cast<size_t>(rank)];
    if (Api().comm_create(of.stream, id, size, rank, &options, kTimeoutUs, &of.comm) == kHeddleCudaOk) continue;
    std::fprintf(stderr, "no NCCL: %s\n", Api().last_error());
    for (Rank& made : ranks) Check(Api().comm_destroy(made.comm));
    return false;
  }
  OnThreads(ranks, [&](int rank) {
    Check(Api().comm_connect(ranks[static_cast<size_t>(rank)].comm));
    Check(Api().barrier(ranks[static_cast<size_t>(rank)].stream, ranks[static_cast<size_t>(rank)].comm));
  });
  return true;
}

void* Allocate(HeddleCudaStream* stream, int64_t bytes) {
  void* memory = nullptr;
  Check(Api().allocate(stream, bytes, &memory));
  // Sums are in place, again and again: zeros stay zeros, and no kernel here is faster for it.
  Check(Api().fill(stream, memory, 0, bytes));
  return memory;
}

void PrepareRank(Rank& rank, int device) {
  Check(Api().stream_create(device, int64_t{64} << 20, kTimeoutUs, &rank.stream));
  rank.x = Allocate(rank.stream, kGatheredBytes / 2);
  rank.gathered = Allocate(rank.stream, kGatheredBytes);
  rank.residual = static_cast<float*>(Allocate(rank.stream, 2 * kMaxOneShotBytes));
  rank.weight = static_cast<float*>(Allocate(rank.stream, kHidden * int64_t{sizeof(float)}));
  Check(Api().stream_synchronize(rank.stream));
}

// Of a row of logits, a share a rank.
void BenchGather(std::vector<Rank>& ranks) {
  const auto size = static_cast<int64_t>(ranks.size());
  const std::vector<int64_t> columns(ranks.size(), kVocabSize / size);
  for (const int64_t rows : {1, 8, 64}) {
    const Times times = Measure(ranks, [&](int rank) {
      const Rank& of = ranks[static_cast<size_t>(rank)];
      const HeddleCudaMatrix x = {of.x, kF32, rows, kVocabSize / size, kVocabSize / size};
      const HeddleCudaGatherColumns op = {x, 0, columns.data(), {of.gathered, kF32, rows, kVocabSize, kVocabSize}};
      Check(Api().gather_columns(of.stream, of.comm, &op));
    });
    Print({"gathering of logits of " + std::to_string(size) + " ranks through NCCL, by rows", std::to_string(rows),
           times, static_cast<double>(rows * kVocabSize * 4)});
  }
}

void Bench(int size, int num_devices) {
  std::vector<Rank> ranks(static_cast<size_t>(size));
  std::vector<HeddleCudaStream*> streams;
  for (int rank = 0; rank < size; ++rank) {
    PrepareRank(ranks[static_cast<size_t>(rank)], rank % num_devices);
    streams.push_back(ranks[static_cast<size_t>(rank)].stream);
  }
  HeddleCudaPeerGroup* group = nullptr;
  Check(Api().peer_group_create(streams.data(), size, kMaxOneShotBytes, kTimeoutUs, &group));
  const bool has_nccl = ConnectNccl(ranks, num_devices);

  const std::string sum = "sum over " + std::to_string(size) + " ranks on " +
                          std::to_string(std::min(size, num_devices)) + " device" + (num_devices > 1 ? "s" : "");
  for (int64_t bytes = kSmallest; bytes <= kLargest; bytes *= 2) {
    const auto print = [&](const char* how, const std::function<void(int)>& call) {
      Print({sum + how + ", by KiB", std::to_string(bytes >> 10), Measure(ranks, call), static_cast<double>(bytes)});
    };
    const auto x = [&](int rank) {
      const int64_t count = bytes / 2;
      return HeddleCudaMatrix{ranks[static_cast<size_t>(rank)].x, kBf16, 1, count, count};
    };
    const auto norm = [&](int rank) {
      const Rank& of = ranks[static_cast<size_t>(rank)];
      const int64_t rows = bytes / 2 / kHidden;
      const HeddleCudaMatrix rows_of_x{of.x, kBf16, rows, kHidden, kHidden};
      return HeddleCudaAddRmsNorm{rows_of_x, {of.residual, kF32, rows, kHidden, kHidden}, of.weight, 1e-5f, rows_of_x};
    };
    const bool fits = bytes <= kMaxOneShotBytes;
    if (fits) {
      print(" in one shot", [&](int rank) {
        Check(Api().one_shot_all_reduce_sum(streams[static_cast<size_t>(rank)], group, rank, x(rank)));
      });
      print(" in one shot with the norm", [&](int rank) {
        const HeddleCudaAddRmsNorm op = norm(rank);
        Check(Api().one_shot_all_reduce_add_rms_norm(streams[static_cast<size_t>(rank)], group, rank, &op));
      });
    }
    if (has_nccl) {
      print(" through NCCL", [&](int rank) {
        const Rank& of = ranks[static_cast<size_t>(rank)];
        Check(Api().all_reduce_sum(of.stream, of.comm, x(rank)));
      });
    }
    if (has_nccl && fits) {
      print(" through NCCL, then the norm", [&](int rank) {
        const Rank& of = ranks[static_cast<size_t>(rank)];
        const HeddleCudaAddRmsNorm op = norm(rank);
        Check(Api().all_reduce_sum(of.stream, of.comm, x(rank)));
        Check(Api().add_rms_norm(of.stream, &op));
      });
    }
  }
  if (has_nccl) BenchGather(ranks);

  if (has_nccl) OnThreads(ranks, [&](int rank) { Check(Api().comm_destroy(ranks[static_cast<size_t>(rank)].comm)); });
  Check(Api().peer_group_destroy(group));
  for (Rank& rank : ranks) {
    for (void* memory : {rank.x, rank.gathered, static_cast<void*>(rank.residual), static_cast<void*>(rank.weight)}) {
      Check(Api().free(rank.stream, memory));
    }
    Check(Api().stream_destroy(rank.stream));
  }
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  // What ranks on one device need, before the first use of CUDA and NCCL: see HeddleCudaNcclOptions.
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  const int num_devices = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  for (const int size : {2, 4}) heddle::bench::Bench(size, num_devices);
  return 0;
}
