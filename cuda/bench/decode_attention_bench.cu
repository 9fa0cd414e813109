// Decode attention over a paged cache, as a step of Llama 3.1 8B has it (32 heads, 8 KV heads of 128, bfloat16), and
// the same over an int8 cache, against a kernel that only reads, measured in the same run. One line of JSON a figure;
// the ratio is that to the bfloat16 cache.
//
//   decode_attention_bench [BLOCK_SIZE=16]
//
// A case runs as a CUDA graph of many layers, each with a cache of its own, kCacheBytes in all, so that L2 holds
// nothing of what a layer reads. Blocks lie in no order. Bytes are those of the keys and values that the tokens see,
// scales included. The ceiling is measured again at the end: clocks drift.
#include <numeric>
#include <random>

#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int64_t kCacheBytes = int64_t{2} << 30;
constexpr int kMaxLayers = 256;
constexpr int kNumHeads = 32;
constexpr int kNumKVHeads = 8;
constexpr int kHeadDim = 128;
// Keys and values.
constexpr int64_t BytesPerToken(HeddleCudaDType dtype) {
  return 2 * kNumKVHeads * (dtype == kHeddleCudaInt8 ? kHeadDim + int64_t{4} : kHeadDim * int64_t{2});
}

struct Case {
  int num_seqs;
  int length;
};
constexpr Case kCases[] = {{1, 1024}, {1, 32768}, {8, 4096}, {8, 16384}, {64, 256}, {64, 2048}, {128, 160}, {256, 512}};

// Of one layer.
Times MeasureCase(Device& device, const Case& each, HeddleCudaDType dtype, int block_size) {
  const int blocks_per_seq = (each.length + block_size - 1) / block_size;
  const int64_t num_blocks = int64_t{each.num_seqs} * blocks_per_seq;
  const int64_t layer_bytes = num_blocks * block_size * BytesPerToken(dtype);
  const auto num_layers = static_cast<int>(std::clamp<int64_t>(kCacheBytes / layer_bytes, 4, kMaxLayers));
  std::vector<int32_t> table(static_cast<size_t>(num_blocks));
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937_64(1));
  std::vector<int32_t> starts(static_cast<size_t>(each.num_seqs) + 1);
  std::iota(starts.begin(), starts.end(), 0);

  HeddleCudaPagedAttention op = {};
  op.q = device.Random(each.num_seqs, kNumHeads * kHeadDim);
  op.query_start_loc = device.Array(starts);
  op.seq_lens = device.Array(std::vector<int32_t>(static_cast<size_t>(each.num_seqs), each.length));
  op.block_table = device.Array(table);
  op.block_table_stride = blocks_per_seq;
  op.num_seqs = each.num_seqs;
  op.max_query_len = 1;
  op.max_seq_len = each.length;
  op.num_heads = kNumHeads;
  op.scale = 0.0883883f;
  op.out = device.Random(each.num_seqs, kNumHeads * kHeadDim);
  // Random bits as int8, too, and small scales beside them: bfloat16 numbers of this deviation are, two as a float32.
  const float deviation = dtype == kHeddleCudaInt8 ? 0.01f : 1.0f;
  auto* const caches = static_cast<char*>(device.Random(num_layers * layer_bytes / 256, kHeadDim, deviation).data);
  const Times times = device.Measure([&] {
    for (int layer = 0; layer < num_layers; ++layer) {
      char* const keys = caches + layer * layer_bytes;
      op.cache = {keys, keys + layer_bytes / 2, dtype, num_blocks, kNumKVHeads, block_size, kHeadDim};
      Check(Api().paged_attention(device.stream(), &op));
    }
  });
  device.FreeAll();
  return times / num_layers;
}

void Run(int block_size) {
  Device device;
  const double ceiling = ReadCeiling(device);
  for (const Case& each : kCases) {
    const std::string size = std::to_string(each.num_seqs) + " x " + std::to_string(each.length);
    const auto bytes_of = [&](HeddleCudaDType dtype) {
      return static_cast<double>(int64_t{each.num_seqs} * each.length * BytesPerToken(dtype));
    };
    const Times times = MeasureCase(device, each, kBf16, block_size);
    Print({"decode attention, by sequences and tokens", size, times, bytes_of(kBf16), ceiling});
    const Times int8_times = MeasureCase(device, each, kHeddleCudaInt8, block_size);
    Print({"decode attention, int8 cache, by sequences and tokens", size, int8_times, bytes_of(kHeddleCudaInt8),
           ceiling, Unit::kGigabytes, times.median});
  }
  ReadCeiling(device);
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  heddle::bench::Run(argc > 1 ? std::atoi(argv[1]) : 16);
  return 0;
}
