// `npm run bench:matmul`: the products of a 1.1 B Llama layer beside the machine's ceilings, in turns.
//
//   matmul_bench [threads=2] [rounds=30] [isa]
//
// One line of JSON a product: medians over the rounds of its rate, in 10^9 a second, and of its share of the ceiling
// measured just before it: read bandwidth for a few rows, the tiled matrix unit (or the vector unit) for many.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ceilings.h"
#include "comm/tensor_parallel.h"
#include "device/buffer.h"
#include "ops/ops.h"

namespace heddle::bench {
namespace {

struct Case {
  const char* name;
  int64_t n;
  int64_t k;
  bool sliced;
};
constexpr Case kCases[] = {{"qkv", 3072, 2048, false},
                           {"o", 2048, 2048, true},
                           {"gate_up", 16384, 2048, false},
                           {"down", 2048, 8192, true},
                           {"lm_head", 32768, 2048, false}};
constexpr int64_t kRows[] = {1, 8, 32, 256};

// Weights that no cache holds at once, so that each product reads its own from memory.
struct Weights {
  explicit Weights(const Case& c) {
    const auto slices = c.sliced ? TensorParallel{}.ShardSlices(c.k, 16) : std::vector<int64_t>{0, c.k};
    Tensor row(DType::kBFloat16, {16, c.k});
    for (int64_t i = 0; i < 16 * c.k; ++i) {
      row.view().Data<uint16_t>()[i] = FloatToBFloat16(static_cast<float>((i * 7919) % 1000 - 500) * 1e-4f);
    }
    const int64_t bytes = PackedMatrix::SizeBytes({.dtype = DType::kBFloat16}, c.n, slices);
    const int64_t copies = std::max<int64_t>(1, (int64_t{400} << 20) / bytes);
    for (int64_t i = 0; i < copies; ++i) {
      PackedMatrix& matrix = matrices.emplace_back(DType::kBFloat16, c.n, c.k, slices);
      for (int64_t at = 0; at < c.n; at += 16) matrix.PackRows(at, row);
    }
  }
  std::vector<PackedMatrix> matrices;
};

double Ceiling(bool matrix_unit, int threads, CpuIsa isa, const char* memory, size_t bytes) {
  if (!matrix_unit) {
    const size_t part = bytes / static_cast<size_t>(threads) / 4096 * 4096;
    return SumOverThreads(
        threads, [&](int thread) { return ReadBytesPerSecond(memory + static_cast<size_t>(thread) * part, part); });
  }
  const std::string name = isa == CpuIsa::kAmx              ? "amx_bf16_tiled"
                           : isa == CpuIsa::kAvx512BFloat16 ? "dot_bf16"
                                                            : "fma_f32";
  for (const Probe& probe : Probes()) {
    if (probe.name == name) return SumOverThreads(threads, [&](int) { return probe.operations_per_second(); });
  }
  return 0;
}

void Run(const Case& c, int threads, int rounds, CpuIsa isa, const char* memory, size_t memory_bytes) {
  const Weights weights(c);
  Stream stream(threads, false, isa);
  for (const int64_t m : kRows) {
    Tensor x(DType::kFloat32, {m, c.k});
    Tensor y(DType::kFloat32, {m, c.n});
    for (int64_t i = 0; i < m * c.k; ++i) x.view().Data<float>()[i] = static_cast<float>(i % 17 - 8) * 0.1f;
    const bool matrix_unit = m > 32;
    std::vector<double> rates;
    std::vector<double> shares;
    size_t copy = 0;
    for (int round = 0; round < rounds; ++round) {
      const double ceiling = Ceiling(matrix_unit, threads, isa, memory, memory_bytes);
      const PackedMatrix& weight = weights.matrices[copy++ % weights.matrices.size()];
      const double start = SecondsNow();
      ops::Matmul(stream, x, weight, y, nullptr);
      const double seconds = SecondsNow() - start;
      const double work =
          matrix_unit ? 2.0 * static_cast<double>(m * c.n * c.k) : static_cast<double>(weight.size_bytes());
      rates.push_back(work / seconds);
      shares.push_back(work / seconds / ceiling);
    }
    std::printf(R"({"name":"%s","rows":%d,"isa":"%s","threads":%d,"unit":"%s","rate":%.1f,"share":%.3f})"
                "\n",
                c.name, static_cast<int>(m), CpuIsaName(isa), threads, matrix_unit ? "GFLOP/s" : "GB/s",
                Median(rates) * 1e-9, Median(shares));
    std::fflush(stdout);
  }
}

int Main(int threads, int rounds, const std::string& isa_name) {
  const CpuIsa isa = ChooseCpuIsa(isa_name);
  constexpr size_t kMemoryBytes = size_t{64} << 20;
  const std::shared_ptr<void> memory = AllocateHost(kMemoryBytes * 8);
  std::memset(memory.get(), 1, kMemoryBytes * 8);
  for (const Case& c : kCases) Run(c, threads, rounds, isa, static_cast<const char*>(memory.get()), kMemoryBytes * 8);
  return 0;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  return heddle::bench::Main(argc > 1 ? std::atoi(argv[1]) : 2, argc > 2 ? std::atoi(argv[2]) : 30,
                             argc > 3 ? argv[3] : "");
}
