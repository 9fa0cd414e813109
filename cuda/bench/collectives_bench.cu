// Microseconds of an all-reduce of bfloat16 in a CUDA graph, NCCL's and the one-shot kernel's, alone and with the
// AddRmsNorm that follows in a decoder: a kernel of its own after NCCL's, part of the one-shot kernel.
//
//   build/cuda/bench/collectives_bench [DEVICES]
//
// Ranks are threads of this process. With 2 and 4 ranks on one device, the default, what is measured is latency and the
// devices' own work, not links; with more devices ranks go round them. Rows that are normed have 4096 elements, so that
// 8 KiB is one token. Graphs hold 20 calls; the slowest rank counts.
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "heddle_cuda.h"

namespace {

constexpr int kCallsPerGraph = 20;
constexpr int kWarmUps = 5;
constexpr int kLaunches = 20;
constexpr int64_t kTimeoutUs = 20'000'000;
constexpr int64_t kMaxOneShotBytes = 1 << 20;
constexpr int64_t kHidden = 4096;
constexpr int64_t kSmallest = 8 << 10;
constexpr int64_t kLargest = 16 << 20;

const HeddleCudaApi& Api() {
  static const HeddleCudaApi& api = *HeddleCudaGetApi(HEDDLE_CUDA_API_VERSION);
  return api;
}

void Must(HeddleCudaStatus status) {
  if (status != kHeddleCudaOk) throw std::runtime_error(Api().last_error());
}

struct Rank {
  HeddleCudaStream* stream = nullptr;
  HeddleCudaCommunicator* comm = nullptr;
  void* x = nullptr;
  float* residual = nullptr;
  float* weight = nullptr;
};

// A failure on one thread would leave the others waiting for it: there is nothing to do but to end.
void OnThreads(std::vector<Rank>& ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(static_cast<int>(rank));
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %zu: %s\n", rank, error.what());
        std::_Exit(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Microseconds of one of the calls that call(rank) launches.
double Measure(std::vector<Rank>& ranks, const std::function<void(int)>& call) {
  std::barrier together(static_cast<std::ptrdiff_t>(ranks.size()));
  std::vector<double> times(ranks.size());
  OnThreads(ranks, [&](int rank) {
    HeddleCudaStream* stream = ranks[static_cast<size_t>(rank)].stream;
    HeddleCudaGraph* graph = nullptr;
    Must(Api().capture_begin(stream));
    for (int i = 0; i < kCallsPerGraph; ++i) call(rank);
    Must(Api().capture_end(stream, &graph));
    together.arrive_and_wait();  // making a graph may wait for the device, and so for a rank that waits for this one
    HeddleCudaEvent* begin = nullptr;
    HeddleCudaEvent* end = nullptr;
    Must(Api().event_create(stream, &begin));
    Must(Api().event_create(stream, &end));
    for (int i = 0; i < kWarmUps; ++i) Must(Api().graph_launch(stream, graph));
    Must(Api().stream_synchronize(stream));
    together.arrive_and_wait();
    Must(Api().event_record(stream, begin));
    for (int i = 0; i < kLaunches; ++i) Must(Api().graph_launch(stream, graph));
    Must(Api().event_record(stream, end));
    Must(Api().event_wait(end, kTimeoutUs));
    double seconds = 0;
    Must(Api().event_elapsed(begin, end, &seconds));
    times[static_cast<size_t>(rank)] = seconds * 1e6 / (kLaunches * kCallsPerGraph);
    Must(Api().event_destroy(begin));
    Must(Api().event_destroy(end));
    Must(Api().graph_destroy(graph));
    together.arrive_and_wait();
  });
  return *std::max_element(times.begin(), times.end());
}

// Whether NCCL serves these ranks; says why not.
bool ConnectNccl(std::vector<Rank>& ranks, int num_devices) {
  char id[128];
  if (Api().comm_unique_id(id) != kHeddleCudaOk) {
    std::printf("no NCCL: %s\n", Api().last_error());
    return false;
  }
  const int size = static_cast<int>(ranks.size());
  const int ranks_on_device = (size + num_devices - 1) / num_devices;
  const HeddleCudaNcclOptions options{ranks_on_device, -1, -1, -1, -1, -1, -1, -1, -1, -1, nullptr, nullptr};
  for (int rank = 0; rank < size; ++rank) {
    Rank& of = ranks[static_cast<size_t>(rank)];
    if (Api().comm_create(of.stream, id, size, rank, &options, kTimeoutUs, &of.comm) == kHeddleCudaOk) continue;
    std::printf("no NCCL: %s\n", Api().last_error());
    for (Rank& made : ranks) Must(Api().comm_destroy(made.comm));
    return false;
  }
  OnThreads(ranks, [&](int rank) {
    Must(Api().comm_connect(ranks[static_cast<size_t>(rank)].comm));
    Must(Api().barrier(ranks[static_cast<size_t>(rank)].stream, ranks[static_cast<size_t>(rank)].comm));
  });
  return true;
}

void PrepareRank(Rank& rank, int device) {
  Must(Api().stream_create(device, int64_t{64} << 20, kTimeoutUs, &rank.stream));
  Must(Api().allocate(rank.stream, kLargest, &rank.x));
  void* memory = nullptr;
  Must(Api().allocate(rank.stream, 2 * kMaxOneShotBytes, &memory));
  rank.residual = static_cast<float*>(memory);
  Must(Api().allocate(rank.stream, kHidden * int64_t{sizeof(float)}, &memory));
  rank.weight = static_cast<float*>(memory);
  // In place, again and again: zeros stay zeros, and no kernel here is faster for it.
  Must(Api().fill(rank.stream, rank.x, 0, kLargest));
  Must(Api().fill(rank.stream, rank.residual, 0, 2 * kMaxOneShotBytes));
  Must(Api().fill(rank.stream, rank.weight, 0, kHidden * int64_t{sizeof(float)}));
  Must(Api().stream_synchronize(rank.stream));
}

void Bench(int size, int num_devices) {
  std::vector<Rank> ranks(static_cast<size_t>(size));
  std::vector<HeddleCudaStream*> streams;
  for (int rank = 0; rank < size; ++rank) {
    PrepareRank(ranks[static_cast<size_t>(rank)], rank % num_devices);
    streams.push_back(ranks[static_cast<size_t>(rank)].stream);
  }
  HeddleCudaPeerGroup* group = nullptr;
  Must(Api().peer_group_create(streams.data(), size, kMaxOneShotBytes, kTimeoutUs, &group));
  const bool has_nccl = ConnectNccl(ranks, num_devices);

  std::printf("%d ranks on %d device(s), microseconds\n%12s%12s%12s%18s%18s\n", size, std::min(size, num_devices),
              "bytes", "NCCL", "one-shot", "NCCL, AddRmsNorm", "one-shot with it");
  for (int64_t bytes = kSmallest; bytes <= kLargest; bytes *= 2) {
    const auto x = [&](int rank) {
      const int64_t count = bytes / 2;
      return HeddleCudaMatrix{ranks[static_cast<size_t>(rank)].x, kHeddleCudaBFloat16, 1, count, count};
    };
    const auto print = [&](bool measured, int width, const std::function<void(int)>& call) {
      if (measured) {
        std::printf("%*.2f", width, Measure(ranks, call));
      } else {
        std::printf("%*s", width, "-");
      }
      std::fflush(stdout);
    };
    std::printf("%12lld", static_cast<long long>(bytes));
    print(has_nccl, 12, [&](int rank) {
      Must(Api().all_reduce_sum(streams[static_cast<size_t>(rank)], ranks[static_cast<size_t>(rank)].comm, x(rank)));
    });
    const bool fits = bytes <= kMaxOneShotBytes;
    print(fits, 12, [&](int rank) {
      Must(Api().one_shot_all_reduce_sum(streams[static_cast<size_t>(rank)], group, rank, x(rank)));
    });
    const auto norm = [&](int rank) {
      const Rank& of = ranks[static_cast<size_t>(rank)];
      const int64_t rows = bytes / 2 / kHidden;
      const HeddleCudaMatrix rows_of_x{of.x, kHeddleCudaBFloat16, rows, kHidden, kHidden};
      return HeddleCudaAddRmsNorm{
          rows_of_x, {of.residual, kHeddleCudaFloat32, rows, kHidden, kHidden}, of.weight, 1e-5f, rows_of_x};
    };
    print(has_nccl && fits, 18, [&](int rank) {
      const Rank& of = ranks[static_cast<size_t>(rank)];
      const HeddleCudaAddRmsNorm op = norm(rank);
      Must(Api().all_reduce_sum(of.stream, of.comm, x(rank)));
      Must(Api().add_rms_norm(of.stream, &op));
    });
    print(fits, 18, [&](int rank) {
      const HeddleCudaAddRmsNorm op = norm(rank);
      Must(Api().one_shot_all_reduce_add_rms_norm(streams[static_cast<size_t>(rank)], group, rank, &op));
    });
    std::printf("\n");
  }

  if (has_nccl) OnThreads(ranks, [&](int rank) { Must(Api().comm_destroy(ranks[static_cast<size_t>(rank)].comm)); });
  Must(Api().peer_group_destroy(group));
  for (Rank& rank : ranks) {
    for (void* memory : {rank.x, static_cast<void*>(rank.residual), static_cast<void*>(rank.weight)}) {
      Must(Api().free(rank.stream, memory));
    }
    Must(Api().stream_destroy(rank.stream));
  }
}

}  // namespace

int main(int argc, char** argv) {
  // What ranks on one device need, before the first use of CUDA and NCCL: see HeddleCudaNcclOptions.
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  try {
    const int num_devices = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
    for (int size : {2, 4}) Bench(size, num_devices);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
