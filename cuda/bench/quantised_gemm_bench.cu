// Products of an 8B model with quantised weights and 9 rows of x or more, beside the same with bfloat16 weights and
// beside what the device can do at most, all measured in the same run. One line of JSON a figure: seconds, and how many
// times faster than bfloat16.
//
//   quantised_gemm_bench [KINDS [ROWS]]     such as w8a8,int8 9,16,4096; all unless named
//
// Where its library can be opened, llm-int8 by bitsandbytes is beside ours. Weights rotate through more memory than L2
// holds.
#include <cmath>
#include <sstream>

#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int64_t kWeightBytes = int64_t{3} << 30;
constexpr int64_t kRotatedBytes = int64_t{1} << 30;
constexpr int64_t kMaxRows = 8192;

struct Shape {
  const char* name;
  int64_t n, k;
  bool gated = false;
};
constexpr Shape kShapes[] = {{"qkv", 6144, 4096},
                             {"o", 4096, 4096},
                             {"gate and up with the activation", 28672, 4096, true},
                             {"down", 4096, 14336},
                             {"head", 128256, 4096}};
constexpr int64_t kMaxOutputs = 128256;

struct Kind {
  const char* name;
  bool int8;
  bool sparse;
  HeddleCudaXQuantization x_quantization;
  float threshold;
  bool outliers_everywhere = false;
};
constexpr Kind kBfloat16 = {"bf16", false, false, kHeddleCudaKeepX, 0};
constexpr Kind kKinds[] = {{"w8a8", true, false, kHeddleCudaQuantizeX, INFINITY},
                           {"int8", true, false, kHeddleCudaKeepX, 0},
                           {"llm-int8", true, false, kHeddleCudaQuantizeX, 6},
                           {"llm-int8 with outliers everywhere", true, false, kHeddleCudaQuantizeX, 6, true},
                           {"2:4", false, true, kHeddleCudaKeepX, 0},
                           {"2:4 int8", true, true, kHeddleCudaKeepX, 0},
                           {"2:4 w8a8", true, true, kHeddleCudaQuantizeX, INFINITY},
                           {"2:4 llm-int8", true, true, kHeddleCudaQuantizeX, 6},
                           {"2:4 llm-int8 with outliers everywhere", true, true, kHeddleCudaQuantizeX, 6, true},
                           {"llm-int8 by bitsandbytes", true, false, kHeddleCudaBitsAndBytesX, 6}};

bool IsHere(const Kind& kind) {
  return kind.x_quantization != kHeddleCudaBitsAndBytesX || Api().bitsandbytes_check() == kHeddleCudaOk;
}

// So that neighbours have nothing in common.
__device__ uint32_t Mixed(uint32_t index) {
  uint32_t word = index * 0x9e3779b9u;
  word = (word ^ word >> 16) * 0x85ebca6bu;
  word = (word ^ word >> 13) * 0xc2b2ae35u;
  return word ^ word >> 16;
}

__global__ void FillBytes(uint4* to, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint32_t words[4];
  for (int j = 0; j < 4; ++j) words[j] = Mixed(static_cast<uint32_t>(i * 4 + j));
  to[i] = {words[0], words[1], words[2], words[3]};
}

// As language models have them: the same few columns in every row.
__global__ void PlantOutliers(uint16_t* x, int64_t columns) {
  constexpr int kOutliers = 6;
  if (threadIdx.x < kOutliers)
    x[blockIdx.x * columns + (2 * threadIdx.x + 1) * columns / (2 * kOutliers)] = 0x41a0;  // 20
}

// As random weights make them of what goes into the down projection of the 8B shape, silu(gate) * up with a deviation
// of 1.28 each: one element of 300, anywhere.
__global__ void ScatterOutliers(uint16_t* x, int64_t columns) {
  const int64_t first = blockIdx.x * columns;
  for (int64_t i = threadIdx.x; i < columns; i += blockDim.x) {
    if (Mixed(static_cast<uint32_t>(first + i)) < 0xffffffffu / 300) x[first + i] = 0x41a0;  // 20
  }
}

class Bench {
 public:
  Bench()
      : read_(ReadCeiling(device_)),
        peak_(ProductCeiling(device_)),
        weights_(device_.Random(kWeightBytes / 8192, 4096, 0.02f).data),
        bytes_(device_.Allocate(kWeightBytes)),
        metadata_(device_.Allocate(kWeightBytes / 4)),
        narrow_x_{X(4096, false), X(4096, true)},
        wide_x_{X(14336, false), X(14336, true)},
        y_(device_.Allocate(kMaxRows * kMaxOutputs * 2)),
        scales_(device_.Array(std::vector<float>(kMaxOutputs, 0.001f))) {
    // The first and the last of each four.
    Check(Api().fill(device_.stream(), metadata_, 0xcc, kWeightBytes / 4));
    FillBytes<<<kWeightBytes / 16 / 256, 256>>>(static_cast<uint4*>(bytes_), kWeightBytes / 16);
    CheckCuda(cudaGetLastError());
    CheckCuda(cudaDeviceSynchronize());
  }

  void Run(const std::vector<std::string>& kinds, const std::vector<int64_t>& rows) {
    for (const Shape& shape : kShapes) {
      for (const int64_t m : rows) {
        const Times dense = TimesOf(kBfloat16, shape, m);
        PrintProduct(kBfloat16, shape, m, dense, dense);
        for (const Kind& kind : kKinds) {
          const bool named = std::find(kinds.begin(), kinds.end(), kind.name) != kinds.end();
          if (named || (kinds.empty() && IsHere(kind))) {
            PrintProduct(kind, shape, m, TimesOf(kind, shape, m), dense);
          }
        }
      }
    }
  }

 private:
  void* X(int64_t columns, bool outliers_everywhere) {
    void* const x = device_.Random(kMaxRows, columns).data;
    Check(Api().stream_synchronize(device_.stream()));
    if (outliers_everywhere) {
      ScatterOutliers<<<kMaxRows, 256>>>(static_cast<uint16_t*>(x), columns);
    } else {
      PlantOutliers<<<kMaxRows, 32>>>(static_cast<uint16_t*>(x), columns);
    }
    CheckCuda(cudaGetLastError());
    return x;
  }

  static int64_t ValueBytes(const Kind& kind, const Shape& shape) {
    return shape.n * shape.k / (kind.sparse ? 2 : 1) * (kind.int8 ? 1 : 2);
  }
  static int64_t MetadataBytes(const Kind& kind, const Shape& shape) { return kind.sparse ? shape.n * shape.k / 8 : 0; }

  Times TimesOf(const Kind& kind, const Shape& shape, int64_t rows) {
    const int64_t bytes = ValueBytes(kind, shape);
    const int64_t copies = kWeightBytes / bytes;
    const int repeats = rows <= 512 ? static_cast<int>(std::max<int64_t>(kRotatedBytes / bytes, 2)) : 4;
    int64_t copy = 0;
    return device_.Measure([&] { Multiply(kind, shape, copy++ % copies * bytes, rows); }, repeats);
  }

  void Multiply(const Kind& kind, const Shape& shape, int64_t offset, int64_t rows) {
    const int64_t size = shape.gated ? shape.n / 2 : shape.n;
    const HeddleCudaMatrix from = {(shape.k == 4096 ? narrow_x_ : wide_x_)[kind.outliers_everywhere], kBf16, rows,
                                   shape.k, shape.k};
    const HeddleCudaMatrix to = {y_, kBf16, rows, size, size};
    const int64_t columns = shape.k / (kind.sparse ? 2 : 1);
    const HeddleCudaWeight weight = {
        .values = {static_cast<char*>(kind.int8 ? bytes_ : weights_) + offset, kind.int8 ? kHeddleCudaInt8 : kBf16,
                   shape.n, columns, columns},
        .scales = kind.int8 ? scales_ : nullptr,
        .metadata = kind.sparse ? static_cast<uint8_t*>(metadata_) + offset / (kind.int8 ? 4 : 8) : nullptr,
        .metadata_stride = kind.sparse ? shape.k / 8 : 0,
        .x_quantization = kind.x_quantization,
        .outlier_threshold = kind.threshold};
    if (shape.gated) {
      const HeddleCudaGatedMatmul op = {from, weight, nullptr, kHeddleCudaSilu, to};
      Check(Api().gated_matmul(device_.stream(), &op));
    } else {
      const HeddleCudaMatmul op = {from, weight, nullptr, to};
      Check(Api().matmul(device_.stream(), &op));
    }
  }

  // The share is of reading the weights or, in float operations of a dense product, of multiplying, whichever of the
  // two takes longer.
  void PrintProduct(const Kind& kind, const Shape& shape, int64_t rows, const Times& times, const Times& dense) {
    const double operations = 2.0 * shape.n * shape.k * static_cast<double>(rows);
    const auto bytes = static_cast<double>(ValueBytes(kind, shape) + MetadataBytes(kind, shape));
    const double floor = std::max(bytes / read_, operations / peak_ / (kind.int8 && kind.threshold > 0 ? 2 : 1));
    std::printf(
        R"({"op": "%s, %s", "size": "%lld", "microseconds": %.2f, "GB/s": %.0f, "TFLOP/s": %.1f, "share": %.3f, "of bf16": %.3f})"
        "\n",
        shape.name, kind.name, static_cast<long long>(rows), times.median * 1e6, bytes / times.median * 1e-9,
        operations / times.median * 1e-12, floor / times.median, dense.median / times.median);
    std::fflush(stdout);
  }

  Device device_;
  const double read_;  // bytes a second, at most
  const double peak_;  // operations a second in bfloat16, at most
  void* const weights_;
  void* const bytes_;
  void* const metadata_;
  void* const narrow_x_[2];  // with six columns of outliers, and with some everywhere
  void* const wide_x_[2];
  void* const y_;
  const float* const scales_;
};

std::vector<std::string> Split(const char* list) {
  std::vector<std::string> parts;
  std::stringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  using namespace heddle::bench;
  std::vector<int64_t> rows = {9, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 4096};
  if (argc > 2) {
    rows.clear();
    for (const std::string& part : Split(argv[2])) rows.push_back(std::stoll(part));
  }
  Bench().Run(argc > 1 ? Split(argv[1]) : std::vector<std::string>{}, rows);
  return 0;
}
