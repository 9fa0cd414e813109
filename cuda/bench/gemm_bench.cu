// Products of an 8B model against what the device can do at most, measured in the same run: GB/s of few rows against a
// kernel that only reads, TFLOP/s of many rows against a product of large square matrices. One line of JSON a figure.
//
//   gemm_bench [cublaslt]     products of few rows also by cuBLASLt, as the library would use it
//
// Weights rotate through more memory than L2 holds.
#include <cstring>

#include "bench/ceilings.cuh"
#include "gemm/epilogues.h"
#include "gemm/gemm.h"

namespace heddle::bench {
namespace {

constexpr int64_t kWeightBytes = int64_t{3} << 30;
constexpr int64_t kRotatedBytes = int64_t{1} << 30;

struct Shape {
  const char* name;
  int64_t n, k;
  bool gated = false;
};
constexpr Shape kQkv = {"qkv", 6144, 4096};
constexpr Shape kOut = {"o", 4096, 4096};
constexpr Shape kGateUp = {"gate and up", 28672, 4096};
constexpr Shape kGated = {"gate and up with the activation", 28672, 4096, true};
constexpr Shape kDown = {"down", 4096, 14336};
constexpr Shape kHead = {"head", 128256, 4096};
constexpr Shape kShapes[] = {kQkv, kOut, kGateUp, kGated, kDown, kHead};
constexpr int64_t kFewRows[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128};
constexpr int64_t kManyRows[] = {256, 512, 2048, 4096, 8192};
constexpr int64_t kMaxRows = 8192;
constexpr int kLayers = 4;

// Who computes a product: whatever the library chooses, or cuBLASLt.
enum class Method { kChosen, kCublasLt };

constexpr int64_t WeightBytes(const Shape& shape) { return shape.n * shape.k * 2; }
constexpr double Operations(const Shape& shape, int64_t rows) { return 2.0 * shape.n * shape.k * rows; }

std::string NameOf(Method method, const std::string& what) {
  return what + (method == Method::kChosen ? ", by rows" : " through cuBLASLt, by rows");
}

class Bench {
 public:
  Bench()
      : read_(ReadCeiling(device_)),
        peak_(ProductCeiling(device_)),
        weights_(device_.Random(kWeightBytes / 8192, 4096, 0.02f).data),
        x_(device_.Random(kMaxRows, kDown.k).data),
        y_(device_.Allocate(kMaxRows * kHead.n * 2)) {}

  void RunFewRows(Method method) {
    for (const Shape& shape : kShapes) {
      for (const int64_t rows : kFewRows) {
        Print({NameOf(method, shape.name), std::to_string(rows), TimesOfProduct(method, shape, rows),
               static_cast<double>(WeightBytes(shape)), read_});
      }
    }
    const HeddleCudaMatrix residual = {device_.Allocate(kMaxRows * kOut.n * 4), kF32, kMaxRows, kOut.n, kOut.n};
    const auto* const norm = static_cast<const float*>(device_.Random(1, kOut.n, 1, kF32).data);
    for (const int64_t rows : kFewRows) {
      int64_t bytes = 0;
      const Times times = device_.Measure([&] { bytes = EnqueueDecoder(method, residual, norm, rows); });
      Print({NameOf(method, std::to_string(kLayers) + " layers without attention"), std::to_string(rows), times,
             static_cast<double>(bytes), read_});
    }
  }

  void RunManyRows() {
    for (const Shape& shape : kShapes) {
      for (const int64_t rows : kManyRows) {
        const double operations = Operations(shape, rows);
        // Whichever of the two the shape could reach at most.
        const double bound = std::max(static_cast<double>(WeightBytes(shape)) / read_, operations / peak_);
        Print({NameOf(Method::kChosen, shape.name), std::to_string(rows), TimesOfProduct(Method::kChosen, shape, rows),
               operations, operations / bound, Unit::kTeraflops});
      }
    }
  }

  // The pass that follows a gated product of many rows.
  void RunGateSums() {
    for (const int64_t rows : kManyRows) {
      const HeddleCudaMatrix sums = {y_, kBf16, rows, kGated.n, kGated.n};
      const HeddleCudaMatrix to = {x_, kBf16, rows, kGated.n / 2, kGated.n / 2};
      const Times times =
          device_.Measure([&] { cuda::GateSums(*device_.stream(), sums, nullptr, kHeddleCudaSilu, to); }, 4);
      Print({"activation of gate and up, by rows", std::to_string(rows), times,
             static_cast<double>(rows * kGated.n * 3), read_});
    }
  }

 private:
  // Of the same product again and again, each with its own weights.
  Times TimesOfProduct(Method method, const Shape& shape, int64_t rows) {
    const int64_t copies = kWeightBytes / WeightBytes(shape);  // that lie one after another
    const int repeats = rows <= 512 ? static_cast<int>(std::max<int64_t>(kRotatedBytes / WeightBytes(shape), 2)) : 2;
    int64_t copy = 0;
    return device_.Measure([&] { Multiply(method, shape, copy++ % copies * WeightBytes(shape), x_, y_, rows, kBf16); },
                           repeats);
  }

  // Norms and the five products of kLayers layers, then the head. Returns the bytes of all weights, which lie one after
  // another. Rows of qkv are read as if attention had left its output at the front of the same memory.
  int64_t EnqueueDecoder(Method method, HeddleCudaMatrix residual, const float* norm, int64_t rows) {
    int64_t offset = 0;
    const auto multiply = [&](const Shape& shape, void* from, void* to, HeddleCudaDType to_dtype = kBf16) {
      Multiply(method, shape, offset, from, to, rows, to_dtype);
      offset += WeightBytes(shape);
    };
    const HeddleCudaMatrix hidden = {x_, kBf16, rows, kOut.n, kOut.n};
    residual.num_rows = rows;
    const HeddleCudaAddRmsNorm add_norm = {hidden, residual, norm, 1e-5f, hidden};
    for (int layer = 0; layer < kLayers; ++layer) {
      multiply(kQkv, x_, y_);
      multiply(kOut, y_, x_);
      Check(Api().add_rms_norm(device_.stream(), &add_norm));
      multiply(kGated, x_, y_);
      multiply(kDown, y_, x_);
      Check(Api().add_rms_norm(device_.stream(), &add_norm));
    }
    multiply(kHead, x_, y_, kF32);
    return offset;
  }

  // With the weights that lie at `offset`.
  void Multiply(Method method, const Shape& shape, int64_t offset, void* x, void* y, int64_t rows,
                HeddleCudaDType y_dtype) {
    const int64_t size = shape.gated ? shape.n / 2 : shape.n;
    const HeddleCudaMatrix from = {x, kBf16, rows, shape.k, shape.k};
    const HeddleCudaWeight weight =
        DenseWeight({static_cast<char*>(weights_) + offset, kBf16, shape.n, shape.k, shape.k});
    const HeddleCudaMatrix to = {y, y_dtype, rows, size, size};
    if (method == Method::kCublasLt) {
      MultiplyByCublasLt(shape, from, weight, to);
    } else if (shape.gated) {
      const HeddleCudaGatedMatmul op = {from, weight, nullptr, kHeddleCudaSilu, to};
      Check(Api().gated_matmul(device_.stream(), &op));
    } else {
      const HeddleCudaMatmul op = {from, weight, nullptr, to};
      Check(Api().matmul(device_.stream(), &op));
    }
  }

  void MultiplyByCublasLt(const Shape& shape, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
                          const HeddleCudaMatrix& y) {
    HeddleCudaStream& stream = *device_.stream();
    const HeddleCudaMatrix sums = {stream.workspace, kBf16, x.num_rows, shape.n, shape.n};
    const HeddleCudaMatmul op = {x, weight, nullptr, shape.gated ? sums : y};
    if (!cuda::GemmPlans::Of(stream).Multiply(stream, op)) Die("cuBLASLt has no algorithm");
    if (shape.gated) cuda::GateSums(stream, sums, nullptr, kHeddleCudaSilu, y);
  }

  Device device_;
  const double read_;  // bytes a second, at most
  const double peak_;  // operations a second, at most
  void* const weights_;
  void* const x_;
  void* const y_;
};

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  heddle::bench::Bench bench;
  bench.RunFewRows(heddle::bench::Method::kChosen);
  if (argc > 1 && std::strcmp(argv[1], "cublaslt") == 0) bench.RunFewRows(heddle::bench::Method::kCublasLt);
  bench.RunManyRows();
  bench.RunGateSums();
  return 0;
}
