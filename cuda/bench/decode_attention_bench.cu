// Decode attention over a paged cache, as a step of Llama 3.1 8B has it (32 heads, 8 KV heads of 128, bfloat16),
// against a kernel that only reads, measured in the same run.
//
//   decode_attention_bench [LIBRARY [BLOCK_SIZE]]     build/cuda/libheddle_cuda.so and 16 by default
//
// A case runs as a CUDA graph of many layers, each with a cache of its own, kCacheBytes in all, so that L2 holds
// nothing of what a layer reads. Blocks lie in no order. Times are medians of kRuns launches after kWarmUpSeconds;
// bytes are those of the keys and values that the tokens see. The ceiling is measured again at the end: clocks drift.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "heddle_cuda.h"

namespace {

constexpr int kRuns = 25;
constexpr double kWarmUpSeconds = 0.2;
constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr int64_t kCeilingBytes = int64_t{2} << 30;
constexpr int64_t kCacheBytes = int64_t{2} << 30;
constexpr int kMaxLayers = 256;
constexpr int kNumHeads = 32;
constexpr int kNumKVHeads = 8;
constexpr int kHeadDim = 128;
constexpr int64_t kBytesPerToken = 2 * kNumKVHeads * kHeadDim * 2;  // keys and values
constexpr HeddleCudaDType kT = kHeddleCudaBFloat16;

struct Case {
  int num_seqs;
  int length;
  const char* aim;
};
constexpr Case kCases[] = {{1, 1024, "<= 5 us"}, {1, 32768, ""}, {8, 4096, ""},  {8, 16384, ">= 93 %"},
                           {64, 256, ">= 75 %"}, {64, 2048, ""}, {128, 160, ""}, {256, 512, ""}};

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "decode_attention_bench: %s\n", message.c_str());
  std::exit(1);
}

void CheckCuda(cudaError_t error) {
  if (error != cudaSuccess) Die(cudaGetErrorString(error));
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The library and a stream of it. Memory lives as long as the program unless it is freed.
class Device {
 public:
  explicit Device(const char* path) {
    void* const file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (file == nullptr) Die(dlerror());
    const auto get_api = reinterpret_cast<decltype(&HeddleCudaGetApi)>(dlsym(file, "HeddleCudaGetApi"));
    if (get_api == nullptr || get_api(HEDDLE_CUDA_API_VERSION) == nullptr) Die("the library is of another version");
    api_ = get_api(HEDDLE_CUDA_API_VERSION);
    Check(api_->stream_create(0, kWorkspaceBytes, &stream_));
    for (HeddleCudaEvent*& event : events_) Check(api_->event_create(stream_, &event));
  }

  const HeddleCudaApi& api() const { return *api_; }
  HeddleCudaStream* stream() const { return stream_; }
  void Check(HeddleCudaStatus status) const {
    if (status != kHeddleCudaOk) Die(api_->last_error());
  }

  // Normally distributed, in rows of 128.
  void* Random(int64_t bytes, uint64_t seed) const {
    void* memory = nullptr;
    Check(api_->allocate(stream_, bytes, &memory));
    Check(api_->fill_random(stream_, {memory, kT, bytes / 256, 128, 128}, seed, 1));
    return memory;
  }
  int32_t* Ints(const std::vector<int32_t>& values) const {
    void* memory = nullptr;
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
    Check(api_->allocate(stream_, bytes, &memory));
    Check(api_->copy(stream_, memory, values.data(), bytes));
    Check(api_->stream_synchronize(stream_));
    return static_cast<int32_t*>(memory);
  }
  void Free(void* memory) const { Check(api_->free(stream_, memory)); }

  // Of a launch of what `enqueue` puts on the stream. It runs once outside the graph too.
  template <typename Enqueue>
  double MedianSeconds(const Enqueue& enqueue) const {
    enqueue();
    Check(api_->stream_synchronize(stream_));
    HeddleCudaGraph* graph = nullptr;
    Check(api_->capture_begin(stream_));
    enqueue();
    Check(api_->capture_end(stream_, &graph));
    for (const double begin = Now(); Now() - begin < kWarmUpSeconds;) {
      Check(api_->graph_launch(stream_, graph));
      Check(api_->stream_synchronize(stream_));
    }
    std::vector<double> seconds(kRuns);
    for (double& each : seconds) {
      Check(api_->event_record(stream_, events_[0]));
      Check(api_->graph_launch(stream_, graph));
      Check(api_->event_record(stream_, events_[1]));
      Check(api_->stream_synchronize(stream_));
      Check(api_->event_elapsed(events_[0], events_[1], &each));
    }
    Check(api_->graph_destroy(graph));
    return Median(seconds);
  }

 private:
  const HeddleCudaApi* api_ = nullptr;
  HeddleCudaStream* stream_ = nullptr;
  HeddleCudaEvent* events_[2] = {};
};

constexpr int kReadThreads = 512;
constexpr int kReadsInFlight = 8;

__global__ void __launch_bounds__(kReadThreads) ReadKernel(const uint4* from, int64_t count, uint32_t* sink) {
  uint32_t all = 0;
  const int64_t stride = int64_t{gridDim.x} * kReadThreads;
  for (int64_t i = int64_t{blockIdx.x} * kReadThreads + threadIdx.x; i < count; i += stride * kReadsInFlight) {
    uint4 packs[kReadsInFlight];
#pragma unroll
    for (int j = 0; j < kReadsInFlight; ++j) {
      const uint4* address = from + min(i + j * stride, count - 1);
      asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(packs[j].x), "=r"(packs[j].y), "=r"(packs[j].z), "=r"(packs[j].w)
                   : "l"(address));
    }
#pragma unroll
    for (const uint4& pack : packs) all ^= pack.x ^ pack.y ^ pack.z ^ pack.w;
  }
  if (all == 0x9e3779b9) *sink = all;  // never, or all the same: without a use there would be no reads
}

// Bytes a second of the best grid.
double MeasureCeiling(const void* memory) {
  int multiprocessors = 0;
  CheckCuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  cudaEvent_t begin, end;
  CheckCuda(cudaEventCreate(&begin));
  CheckCuda(cudaEventCreate(&end));
  uint32_t* sink = nullptr;
  CheckCuda(cudaMalloc(&sink, sizeof(*sink)));
  double best = 0;
  for (const int blocks_per_multiprocessor : {2, 4, 8, 16}) {
    std::vector<double> seconds(kRuns);
    for (int run = -5; run < kRuns; ++run) {
      CheckCuda(cudaEventRecord(begin));
      ReadKernel<<<multiprocessors * blocks_per_multiprocessor, kReadThreads>>>(static_cast<const uint4*>(memory),
                                                                                kCeilingBytes / 16, sink);
      CheckCuda(cudaEventRecord(end));
      CheckCuda(cudaDeviceSynchronize());
      float milliseconds = 0;
      CheckCuda(cudaEventElapsedTime(&milliseconds, begin, end));
      if (run >= 0) seconds[static_cast<size_t>(run)] = milliseconds * 1e-3;
    }
    best = std::max(best, kCeilingBytes / Median(seconds));
  }
  CheckCuda(cudaFree(sink));
  CheckCuda(cudaEventDestroy(begin));
  CheckCuda(cudaEventDestroy(end));
  return best;
}

double MeasureCeiling(const Device& device) {
  void* const memory = device.Random(kCeilingBytes, 1);
  device.Check(device.api().stream_synchronize(device.stream()));
  const double ceiling = MeasureCeiling(memory);
  device.Free(memory);
  return ceiling;
}

// Seconds of one layer.
double MeasureCase(const Device& device, const Case& each, int block_size) {
  const int blocks_per_seq = (each.length + block_size - 1) / block_size;
  const int64_t num_blocks = int64_t{each.num_seqs} * blocks_per_seq;
  const int64_t layer_bytes = num_blocks * block_size * kBytesPerToken;
  const auto num_layers = static_cast<int>(std::clamp<int64_t>(kCacheBytes / layer_bytes, 4, kMaxLayers));
  std::vector<int32_t> table(static_cast<size_t>(num_blocks));
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937_64(1));
  std::vector<int32_t> starts(static_cast<size_t>(each.num_seqs) + 1);
  std::iota(starts.begin(), starts.end(), 0);
  const std::vector<int32_t> lengths(static_cast<size_t>(each.num_seqs), each.length);

  const int64_t row_size = kNumHeads * kHeadDim;
  void* const q = device.Random(each.num_seqs * row_size * 2, 2);
  void* const out = device.Random(each.num_seqs * row_size * 2, 3);
  auto* const caches = static_cast<char*>(device.Random(num_layers * layer_bytes, 4));
  int32_t* const device_table = device.Ints(table);
  int32_t* const device_starts = device.Ints(starts);
  int32_t* const device_lengths = device.Ints(lengths);
  const double seconds = device.MedianSeconds([&] {
    for (int layer = 0; layer < num_layers; ++layer) {
      char* const keys = caches + layer * layer_bytes;
      HeddleCudaPagedAttention op = {};
      op.q = {q, kT, each.num_seqs, row_size, row_size};
      op.cache = {keys, keys + layer_bytes / 2, kT, num_blocks, kNumKVHeads, block_size, kHeadDim};
      op.query_start_loc = device_starts;
      op.seq_lens = device_lengths;
      op.block_table = device_table;
      op.block_table_stride = blocks_per_seq;
      op.num_seqs = each.num_seqs;
      op.max_query_len = 1;
      op.max_seq_len = each.length;
      op.num_heads = kNumHeads;
      op.scale = 0.0883883f;
      op.out = {out, kT, each.num_seqs, row_size, row_size};
      device.Check(device.api().paged_attention(device.stream(), &op));
    }
  });
  for (void* memory : {q, out, static_cast<void*>(caches), static_cast<void*>(device_table),
                       static_cast<void*>(device_starts), static_cast<void*>(device_lengths)}) {
    device.Free(memory);
  }
  return seconds / num_layers;
}

}  // namespace

int main(int argc, char** argv) {
  const Device device(argc > 1 ? argv[1] : "build/cuda/libheddle_cuda.so");
  const int block_size = argc > 2 ? std::atoi(argv[2]) : 16;
  const double ceiling = MeasureCeiling(device);
  std::printf("reading %.0f GB/s; blocks of %d tokens\n", ceiling * 1e-9, block_size);
  std::printf("%12s %10s %10s %8s  %s\n", "case", "us", "GB/s", "share", "aim");
  for (const Case& each : kCases) {
    const double seconds = MeasureCase(device, each, block_size);
    const double bandwidth = static_cast<double>(int64_t{each.num_seqs} * each.length * kBytesPerToken) / seconds;
    const std::string name = std::to_string(each.num_seqs) + " x " + std::to_string(each.length);
    std::printf("%12s %10.2f %10.0f %7.1f%%  %s\n", name.c_str(), seconds * 1e6, bandwidth * 1e-9,
                100 * bandwidth / ceiling, each.aim);
  }
  std::printf("reading %.0f GB/s at the end\n", MeasureCeiling(device) * 1e-9);
  return 0;
}
