// `node test/bench/native.mjs attention`: decoding attention of one sequence over 8,000 tokens, by type of the KV
// cache, in turns.
//
//   attention_bench [threads=2] [rounds=25] [isa]
//
// One line of JSON a shape: medians over the rounds of the microseconds of each type and of their quotient.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "ceilings.h"
#include "kvcache/kv_cache.h"
#include "ops/ops.h"

namespace heddle::bench {
namespace {

struct Case {
  int num_heads;
  int num_kv_heads;
  int head_dim;
};
constexpr Case kCases[] = {{32, 8, 128}, {32, 8, 64}, {32, 32, 64}};
constexpr int kTokens = 8000;
constexpr int kBlockSize = 16;
constexpr int kBlocks = kTokens / kBlockSize;
constexpr int kLayers = 8;  // more than a cache of the processor holds at once

Tensor Numbers(int64_t rows, int64_t size) {
  Tensor tensor(DType::kFloat32, {rows, size});
  for (int64_t i = 0; i < rows * size; ++i) {
    tensor.view().Data<float>()[i] = static_cast<float>(i * 7919 % 1000 - 500) * 2e-3f;
  }
  return tensor;
}

// A filled cache, whose blocks lie in no order.
class Sequence {
 public:
  Sequence(Stream& stream, const Case& c, DType dtype)
      : case_(c),
        cache_(dtype, kLayers, kBlocks + 1, kBlockSize, c.num_kv_heads, c.head_dim),
        q_(Numbers(1, int64_t{c.num_heads} * c.head_dim)),
        out_(Numbers(1, int64_t{c.num_heads} * c.head_dim)) {
    for (int i = 0; i < kBlocks; ++i) blocks_.push_back(1 + i * 211 % kBlocks);
    const Tensor queries = Numbers(kBlockSize, int64_t{c.num_heads} * c.head_dim);
    const Tensor keys = Numbers(kBlockSize, int64_t{c.num_kv_heads} * c.head_dim);
    const std::vector<int32_t> positions(kBlockSize);
    std::vector<int64_t> slots(kBlockSize);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const int32_t block : blocks_) {
        for (int i = 0; i < kBlockSize; ++i) slots[static_cast<size_t>(i)] = int64_t{block} * kBlockSize + i;
        ops::RotateAndStore(stream, positions, TensorView(nullptr, DType::kFloat32, {1, 0}), queries, keys, keys, slots,
                            cache_.layer(layer));
      }
    }
  }

  double MicrosecondsPerLayer(Stream& stream) {
    const ops::AttentionParams params{
        .num_heads = case_.num_heads, .num_kv_heads = case_.num_kv_heads, .head_dim = case_.head_dim, .scale = 0.1f};
    const double start = SecondsNow();
    for (int layer = 0; layer < kLayers; ++layer) {
      ops::PagedAttention(stream, q_, cache_.layer(layer), {starts_, lengths_, blocks_, kBlocks}, params, out_);
    }
    return (SecondsNow() - start) / kLayers * 1e6;
  }

 private:
  Case case_;
  KVCache cache_;
  Tensor q_;
  Tensor out_;
  std::vector<int32_t> blocks_;
  std::vector<int32_t> starts_ = {0, 1};
  std::vector<int32_t> lengths_ = {kTokens};
};

void Run(const Case& c, int threads, int rounds, CpuIsa isa) {
  Stream stream(threads, false, isa);
  Sequence bfloat16(stream, c, DType::kBFloat16);
  Sequence int8(stream, c, DType::kInt8);
  std::vector<double> bfloat16_times;
  std::vector<double> int8_times;
  std::vector<double> quotients;
  for (int round = 0; round < rounds; ++round) {
    bfloat16_times.push_back(bfloat16.MicrosecondsPerLayer(stream));
    int8_times.push_back(int8.MicrosecondsPerLayer(stream));
    quotients.push_back(int8_times.back() / bfloat16_times.back());
  }
  std::printf(R"({"heads":%d,"kv_heads":%d,"head_dim":%d,"tokens":%d,"isa":"%s","threads":%d,)"
              R"("bfloat16_us":%.0f,"int8_us":%.0f,"int8_over_bfloat16":%.2f})"
              "\n",
              c.num_heads, c.num_kv_heads, c.head_dim, kTokens, CpuIsaName(isa), threads, Median(bfloat16_times),
              Median(int8_times), Median(quotients));
  std::fflush(stdout);
}

int Main(int threads, int rounds, const std::string& isa_name) {
  for (const Case& c : kCases) Run(c, threads, rounds, ChooseCpuIsa(isa_name));
  return 0;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  return heddle::bench::Main(argc > 1 ? std::atoi(argv[1]) : 2, argc > 2 ? std::atoi(argv[2]) : 25,
                             argc > 3 ? argv[3] : "");
}
