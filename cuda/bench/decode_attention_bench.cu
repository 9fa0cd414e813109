// Decode attention over a paged cache, as a step of Llama 3.1 8B has it (32 heads, 8 KV heads of 128, bfloat16),
// against a kernel that only reads, measured in the same run.
//
//   decode_attention_bench [LIBRARY [BLOCK_SIZE]]     build/cuda/libheddle_cuda.so and 16 by default
//
// A case runs as a CUDA graph of many layers, each with a cache of its own, kCacheBytes in all, so that L2 holds
// nothing of what a layer reads. Blocks lie in no order. Times are medians of kRuns launches after kWarmUpSeconds;
// bytes are those of the keys and values that the tokens see. The ceiling is measured again at the end: clocks drift.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/read_bandwidth.cuh"

namespace {

using heddle::bench::MeasureCeiling;
using heddle::bench::OpenLibrary;

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

// The library and a stream of it. Memory lives as long as the program unless it is freed.
class Device : public heddle::bench::Device {
 public:
  explicit Device(const char* path) : heddle::bench::Device(OpenLibrary(path), kWorkspaceBytes, kWarmUpSeconds) {}

  // Normally distributed, in rows of 128.
  void* Random(int64_t bytes, uint64_t seed) const {
    void* memory = nullptr;
    Check(api().allocate(stream(), bytes, &memory));
    Check(api().fill_random(stream(), {memory, kT, bytes / 256, 128, 128}, seed, 1));
    return memory;
  }
  int32_t* Ints(const std::vector<int32_t>& values) const {
    void* memory = nullptr;
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
    Check(api().allocate(stream(), bytes, &memory));
    Check(api().copy(stream(), memory, values.data(), bytes));
    Check(api().stream_synchronize(stream()));
    return static_cast<int32_t*>(memory);
  }
  void Free(void* memory) const { Check(api().free(stream(), memory)); }
};

double ReadCeiling(const Device& device) {
  void* const memory = device.Random(kCeilingBytes, 1);
  device.Check(device.api().stream_synchronize(device.stream()));
  const double ceiling = MeasureCeiling(memory, kCeilingBytes);
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
  const double ceiling = ReadCeiling(device);
  std::printf("reading %.0f GB/s; blocks of %d tokens\n", ceiling * 1e-9, block_size);
  std::printf("%12s %10s %10s %8s  %s\n", "case", "us", "GB/s", "share", "aim");
  for (const Case& each : kCases) {
    const double seconds = MeasureCase(device, each, block_size);
    const double bandwidth = static_cast<double>(int64_t{each.num_seqs} * each.length * kBytesPerToken) / seconds;
    const std::string name = std::to_string(each.num_seqs) + " x " + std::to_string(each.length);
    std::printf("%12s %10.2f %10.0f %7.1f%%  %s\n", name.c_str(), seconds * 1e6, bandwidth * 1e-9,
                100 * bandwidth / ceiling, each.aim);
  }
  std::printf("reading %.0f GB/s at the end\n", ReadCeiling(device) * 1e-9);
  return 0;
}
