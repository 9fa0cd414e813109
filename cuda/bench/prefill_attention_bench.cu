// Prefill attention over a paged cache: TFLOP/s of one sequence, causal, bfloat16, by length, and of a chunk that
// continues a context.
//
//   prefill_attention_bench [LIBRARY [BLOCK_SIZE]]     build/cuda/libheddle_cuda.so and 16 by default
//
// Operations are counted as if the mask saved all that it hides: 4 * head_dim * heads for every token and key that it
// sees. Times are of a CUDA graph of kOps ops, medians of kRuns launches after kWarmUpSeconds. Blocks lie in no order.
// The share is of kPeak, what cuBLASLt reaches on an H100 with bfloat16 matrices of 8192 squared.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/bench.h"

namespace {

using heddle::bench::OpenLibrary;

constexpr int kOps = 8;
constexpr double kWarmUpSeconds = 0.3;
constexpr double kPeak = 790e12;
constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr HeddleCudaDType kT = kHeddleCudaBFloat16;

struct Case {
  int head_dim;
  int num_heads;
  int num_kv_heads;
  int context;  // before the step
  int tokens;
  int num_decoding;  // further sequences with one token each, after as much context
  float soft_cap;
  const char* aim;
};

constexpr Case kCases[] = {
    {128, 32, 8, 0, 512, 0, 0, ""},     {128, 32, 8, 0, 1024, 0, 0, ">= 400"},
    {128, 32, 8, 0, 2048, 0, 0, ""},    {128, 32, 8, 0, 4096, 0, 0, ">= 550"},
    {128, 32, 8, 0, 8192, 0, 0, ""},    {128, 32, 8, 0, 16384, 0, 0, ">= 590"},
    {128, 32, 32, 0, 4096, 0, 0, ""},   {128, 32, 8, 8192, 512, 0, 0, ""},
    {128, 32, 8, 8192, 512, 32, 0, ""}, {128, 32, 8, 0, 4096, 0, 50, ""},
    {64, 32, 8, 0, 512, 0, 0, ""},      {64, 32, 8, 0, 1024, 0, 0, ""},
    {64, 32, 8, 0, 2048, 0, 0, ""},     {64, 32, 8, 0, 4096, 0, 0, ">= 400"},
    {64, 32, 8, 0, 8192, 0, 0, ""},     {64, 32, 8, 0, 16384, 0, 0, ">= 450"},
    {96, 32, 32, 0, 4096, 0, 0, ""},    {256, 16, 8, 0, 4096, 0, 0, ""},
    {80, 32, 32, 0, 1024, 0, 0, ""},
};

// The library and a stream of it.
class Device : public heddle::bench::Device {
 public:
  explicit Device(const char* path) : heddle::bench::Device(OpenLibrary(path), kWorkspaceBytes, kWarmUpSeconds) {}

  std::string Name() const {
    HeddleCudaDeviceInfo info = {};
    Check(api().device_info(0, &info));
    return info.name;
  }

  HeddleCudaMatrix Random(int64_t rows, int64_t size, uint64_t seed) {
    const HeddleCudaMatrix matrix = {Allocate(rows * size * 2), kT, rows, size, size};
    Check(api().fill_random(stream(), matrix, seed, 1));
    return matrix;
  }
  int32_t* Ints(const std::vector<int32_t>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
    void* const memory = Allocate(bytes);
    Check(api().copy(stream(), memory, values.data(), bytes));
    Check(api().stream_synchronize(stream()));
    return static_cast<int32_t*>(memory);
  }
  void FreeAll() {
    for (void* memory : memory_) Check(api().free(stream(), memory));
    memory_.clear();
  }

 private:
  void* Allocate(int64_t bytes) {
    memory_.push_back(nullptr);
    Check(api().allocate(stream(), bytes, &memory_.back()));
    return memory_.back();
  }

  std::vector<void*> memory_;
};

// Seconds of one op.
double Measure(Device& device, const Case& each, int block_size) {
  const int num_seqs = 1 + each.num_decoding;
  const int length = each.context + each.tokens;
  const int blocks_per_seq = (length + block_size - 1) / block_size;
  const int64_t num_blocks = int64_t{num_seqs} * blocks_per_seq;
  std::vector<int32_t> table(static_cast<size_t>(num_blocks));
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937_64(1));
  std::vector<int32_t> starts = {0};
  std::vector<int32_t> lengths;
  for (int seq = 0; seq < num_seqs; ++seq) {
    const int tokens = seq == each.num_decoding ? each.tokens : 1;
    starts.push_back(starts.back() + tokens);
    lengths.push_back(each.context + tokens);
  }

  const int64_t cache_rows = num_blocks * each.num_kv_heads * block_size;
  HeddleCudaPagedAttention op = {};
  op.q = device.Random(starts.back(), each.num_heads * each.head_dim, 1);
  op.out = device.Random(starts.back(), each.num_heads * each.head_dim, 2);
  op.cache = {device.Random(cache_rows, each.head_dim, 3).data,
              device.Random(cache_rows, each.head_dim, 4).data,
              kT,
              num_blocks,
              each.num_kv_heads,
              block_size,
              each.head_dim};
  op.query_start_loc = device.Ints(starts);
  op.seq_lens = device.Ints(lengths);
  op.block_table = device.Ints(table);
  op.block_table_stride = blocks_per_seq;
  op.num_seqs = num_seqs;
  op.max_query_len = each.tokens;
  op.max_seq_len = length;
  op.num_heads = each.num_heads;
  op.scale = 1 / std::sqrt(static_cast<float>(each.head_dim));
  op.soft_cap = each.soft_cap;
  const double seconds = device.MedianSeconds([&] {
    for (int i = 0; i < kOps; ++i) device.Check(device.api().paged_attention(device.stream(), &op));
  });
  device.FreeAll();
  return seconds / kOps;
}

double Operations(const Case& each) {
  const double tokens = each.tokens;
  const double pairs = tokens * each.context + tokens * tokens / 2 + double{1} * each.num_decoding * each.context;
  return 4.0 * pairs * each.head_dim * each.num_heads;
}

}  // namespace

int main(int argc, char** argv) {
  Device device(argc > 1 ? argv[1] : "build/cuda/libheddle_cuda.so");
  const int block_size = argc > 2 ? std::atoi(argv[2]) : 16;
  std::printf("%s, blocks of %d tokens, share of %.0f TFLOP/s\n", device.Name().c_str(), block_size, kPeak * 1e-12);
  std::printf("%-46s %10s %8s %7s  %s\n", "case", "us", "TFLOP/s", "share", "aim");
  for (const Case& each : kCases) {
    const double seconds = Measure(device, each, block_size);
    const double rate = Operations(each) / seconds;
    std::string name = std::to_string(each.head_dim) + ", " + std::to_string(each.num_heads) + "/" +
                       std::to_string(each.num_kv_heads) + " heads, " + std::to_string(each.tokens) + " tokens";
    if (each.context > 0) name += " + " + std::to_string(each.context);
    if (each.num_decoding > 0) name += ", " + std::to_string(each.num_decoding) + " x 1";
    if (each.soft_cap > 0) name += ", cap";
    std::printf("%-46s %10.1f %8.1f %6.1f%%  %s\n", name.c_str(), seconds * 1e6, rate * 1e-12, 100 * rate / kPeak,
                each.aim);
  }
  return 0;
}
