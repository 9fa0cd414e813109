// `npm run bench:matmul`: the products of a 1.1 B Llama layer beside the machine's ceilings, in turns.
//
//   matmul_bench [threads=2] [rounds=30] [isa=] [formats=bf16] [products=all] [rows=1,8,32,256]
//
// Lists are separated by commas; formats are those of kFormats. One line of JSON a product and format: medians over the
// rounds of its rate, in 10^9 a second, of its share of the ceiling measured just before (read bandwidth for a few
// rows, the tiled matrix unit, or the vector unit, for many), and of how many times as fast as the first format it was
// in the same round.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
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

struct Format {
  const char* name;
  MatrixFormat format;
};
constexpr float kOutliers = 6;  // LLM.int8's threshold
const Format kFormats[] = {
    {"f32", {.dtype = DType::kFloat32}},
    {"bf16", {.dtype = DType::kBFloat16}},
    {"bf16-2:4", {.dtype = DType::kBFloat16, .sparse = true}},
    {"int8", {.dtype = DType::kInt8}},
    {"int8-2:4", {.dtype = DType::kInt8, .sparse = true}},
    {"w8a8", {.dtype = DType::kInt8, .quantize_x = true}},
    {"w8a8-2:4", {.dtype = DType::kInt8, .sparse = true, .quantize_x = true}},
    {"llm.int8", {.dtype = DType::kInt8, .quantize_x = true, .outlier_threshold = kOutliers}},
};

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

// Weights that no cache holds at once, so that each product reads its own from memory.
struct Weights {
  Weights(const Case& c, const MatrixFormat& format, int64_t memory_bytes) {
    const auto slices = c.sliced ? TensorParallel{}.ShardSlices(c.k, 16) : std::vector<int64_t>{0, c.k};
    const bool is_int8 = format.dtype == DType::kInt8;
    Tensor row(is_int8 ? DType::kInt8 : DType::kBFloat16, {16, c.k});
    for (int64_t i = 0; i < 16 * c.k; ++i) {
      // Two of four are zero, in changing places.
      const bool zero = format.sparse && ((i + i / 4 % 3) % 4 == 0 || (i + i / 4 % 3) % 4 == 1 + i / 12 % 3);
      const int64_t value = zero ? 0 : (i * 7919) % 200 - 100;
      if (is_int8) {
        row.view().Data<int8_t>()[i] = static_cast<int8_t>(value);
      } else {
        row.view().Data<uint16_t>()[i] = FloatToBFloat16(static_cast<float>(value) * 1e-4f);
      }
    }
    const std::vector<float> scales(16, 1e-4f);
    const int64_t bytes = PackedMatrix::SizeBytes(format, c.n, slices);
    const int64_t copies = std::max<int64_t>(1, memory_bytes / bytes);
    for (int64_t i = 0; i < copies; ++i) {
      PackedMatrix& matrix = matrices.emplace_back(format, c.n, c.k, slices);
      for (int64_t at = 0; at < c.n; at += 16) matrix.PackRows(at, row, is_int8 ? scales.data() : nullptr);
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

struct Options {
  int threads = 2;
  int rounds = 30;
  CpuIsa isa;
  std::vector<Format> formats;
  std::string products;
  std::vector<int64_t> rows;
};

// What the rounds gave for one format.
struct Figures {
  std::vector<double> rates;
  std::vector<double> shares;
  std::vector<double> times_first;
};

void Run(const Case& c, const Options& options, const char* memory, size_t memory_bytes) {
  std::vector<Weights> weights;
  const auto bytes = (int64_t{400} << 20) / static_cast<int64_t>(options.formats.size());
  for (const Format& format : options.formats) weights.emplace_back(c, format.format, bytes);
  Stream stream(options.threads, false, options.isa);
  for (const int64_t m : options.rows) {
    Tensor x(DType::kFloat32, {m, c.k});
    Tensor y(DType::kFloat32, {m, c.n});
    for (int64_t i = 0; i < m * c.k; ++i) x.view().Data<float>()[i] = static_cast<float>(i % 17 - 8) * 0.1f;
    const bool matrix_unit = m > 32;
    std::vector<Figures> figures(options.formats.size());
    for (int round = 0; round < options.rounds; ++round) {
      const double ceiling = Ceiling(matrix_unit, options.threads, options.isa, memory, memory_bytes);
      double first_seconds = 0;
      for (size_t f = 0; f < figures.size(); ++f) {
        const std::vector<PackedMatrix>& matrices = weights[f].matrices;
        const PackedMatrix& weight = matrices[static_cast<size_t>(round) % matrices.size()];
        const double start = SecondsNow();
        ops::Matmul(stream, x, weight, y, nullptr);
        const double seconds = SecondsNow() - start;
        const double work =
            matrix_unit ? 2.0 * static_cast<double>(m * c.n * c.k) : static_cast<double>(weight.size_bytes());
        if (f == 0) first_seconds = seconds;
        figures[f].rates.push_back(work / seconds);
        figures[f].shares.push_back(work / seconds / ceiling);
        figures[f].times_first.push_back(first_seconds / seconds);
      }
    }
    for (size_t f = 0; f < figures.size(); ++f) {
      std::printf(R"({"name":"%s","format":"%s","rows":%d,"isa":"%s","threads":%d,"unit":"%s",)"
                  R"("rate":%.1f,"share":%.3f,"timesFirst":%.2f})"
                  "\n",
                  c.name, options.formats[f].name, static_cast<int>(m), CpuIsaName(options.isa), options.threads,
                  matrix_unit ? "GFLOP/s" : "GB/s", Median(figures[f].rates) * 1e-9, Median(figures[f].shares),
                  Median(figures[f].times_first));
    }
    std::fflush(stdout);
  }
}

int Main(int argc, char** argv) {
  const auto argument = [&](int i, const char* otherwise) { return std::string(argc > i ? argv[i] : otherwise); };
  Options options{.threads = std::atoi(argument(1, "2").c_str()),
                  .rounds = std::atoi(argument(2, "30").c_str()),
                  .isa = ChooseCpuIsa(argument(3, "")),
                  .formats = {},
                  .products = "," + argument(5, "all") + ",",
                  .rows = {}};
  for (const std::string& name : Split(argument(4, "bf16"))) {
    for (const Format& format : kFormats) {
      if (name == format.name) options.formats.push_back(format);
    }
  }
  for (const std::string& rows : Split(argument(6, "1,8,32,256"))) options.rows.push_back(std::atoi(rows.c_str()));
  constexpr size_t kMemoryBytes = size_t{512} << 20;
  const std::shared_ptr<void> memory = AllocateHost(kMemoryBytes);
  std::memset(memory.get(), 1, kMemoryBytes);
  for (const Case& c : kCases) {
    const bool wanted =
        options.products == ",all," || options.products.find("," + std::string(c.name) + ",") != std::string::npos;
    if (wanted && !options.formats.empty()) Run(c, options, static_cast<const char*>(memory.get()), kMemoryBytes);
  }
  return options.formats.empty() ? 1 : 0;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) { return heddle::bench::Main(argc, argv); }
