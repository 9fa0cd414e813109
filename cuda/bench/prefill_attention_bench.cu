// Prefill attention over a paged cache, causal, bfloat16, against a product of large square matrices in the same run:
// of one sequence by length, and of a chunk that continues a context; and the same over an int8 cache, where the ratio
// is that to the bfloat16 cache. One line of JSON a figure.
//
//   prefill_attention_bench [BLOCK_SIZE=16]
//
// Operations are counted as if the mask saved all that it hides: 4 * head_dim * heads for every token and key that it
// sees. Blocks lie in no order.
#include <cmath>
#include <numeric>
#include <random>

#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int kOps = 8;  // a graph

struct Case {
  int head_dim;
  int num_heads;
  int num_kv_heads;
  int context;  // before the step
  int tokens;
  int num_decoding;  // further sequences with one token each, after as much context
  float soft_cap;
};

constexpr Case kCases[] = {
    {128, 32, 8, 0, 512, 0, 0},   {128, 32, 8, 0, 1024, 0, 0},   {128, 32, 8, 0, 2048, 0, 0},
    {128, 32, 8, 0, 4096, 0, 0},  {128, 32, 8, 0, 8192, 0, 0},   {128, 32, 8, 0, 16384, 0, 0},
    {128, 32, 32, 0, 4096, 0, 0}, {128, 32, 8, 8192, 512, 0, 0}, {128, 32, 8, 8192, 512, 32, 0},
    {128, 32, 8, 0, 4096, 0, 50}, {64, 32, 8, 0, 512, 0, 0},     {64, 32, 8, 0, 1024, 0, 0},
    {64, 32, 8, 0, 2048, 0, 0},   {64, 32, 8, 0, 4096, 0, 0},    {64, 32, 8, 0, 8192, 0, 0},
    {64, 32, 8, 0, 16384, 0, 0},  {96, 32, 32, 0, 4096, 0, 0},   {256, 16, 8, 0, 4096, 0, 0},
    {80, 32, 32, 0, 1024, 0, 0},
};

std::string NameOf(const Case& each, HeddleCudaDType dtype) {
  const std::string cache = dtype == kHeddleCudaInt8 ? "int8 cache, " : "";
  std::string name = "prefill attention, " + cache + std::to_string(each.num_heads) + " heads of " +
                     std::to_string(each.head_dim) + ", " + std::to_string(each.num_kv_heads) + " KV heads";
  if (each.context > 0) name += ", after " + std::to_string(each.context);
  if (each.num_decoding > 0) name += ", beside " + std::to_string(each.num_decoding) + " that decode";
  if (each.soft_cap > 0) name += ", capped";
  return name + ", by tokens";
}

// Of one op.
Times MeasureCase(Device& device, const Case& each, HeddleCudaDType dtype, int block_size) {
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
  op.q = device.Random(starts.back(), each.num_heads * each.head_dim);
  op.out = device.Random(starts.back(), each.num_heads * each.head_dim);
  // Of int8 more than enough; see decode_attention_bench.
  const float deviation = dtype == kHeddleCudaInt8 ? 0.01f : 1.0f;
  op.cache = {device.Random(cache_rows, each.head_dim, deviation).data,
              device.Random(cache_rows, each.head_dim, deviation).data,
              dtype,
              num_blocks,
              each.num_kv_heads,
              block_size,
              each.head_dim};
  op.query_start_loc = device.Array(starts);
  op.seq_lens = device.Array(lengths);
  op.block_table = device.Array(table);
  op.block_table_stride = blocks_per_seq;
  op.num_seqs = num_seqs;
  op.max_query_len = each.tokens;
  op.max_seq_len = length;
  op.num_heads = each.num_heads;
  op.scale = 1 / std::sqrt(static_cast<float>(each.head_dim));
  op.soft_cap = each.soft_cap;
  const Times times = device.Measure([&] { Check(Api().paged_attention(device.stream(), &op)); }, kOps);
  device.FreeAll();
  return times;
}

double Operations(const Case& each) {
  const double tokens = each.tokens;
  const double pairs = tokens * each.context + tokens * tokens / 2 + double{1} * each.num_decoding * each.context;
  return 4.0 * pairs * each.head_dim * each.num_heads;
}

void Run(int block_size) {
  Device device;
  const double ceiling = ProductCeiling(device);
  device.FreeAll();
  for (const Case& each : kCases) {
    const std::string tokens = std::to_string(each.tokens);
    const Times times = MeasureCase(device, each, kBf16, block_size);
    Print({NameOf(each, kBf16), tokens, times, Operations(each), ceiling, Unit::kTeraflops});
    const Times int8_times = MeasureCase(device, each, kHeddleCudaInt8, block_size);
    Print(
        {NameOf(each, kHeddleCudaInt8), tokens, int8_times, Operations(each), ceiling, Unit::kTeraflops, times.median});
  }
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  heddle::bench::Run(argc > 1 ? std::atoi(argv[1]) : 16);
  return 0;
}
