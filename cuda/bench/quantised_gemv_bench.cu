// Products of an 8B model with few rows of x and weights that are int8, 2:4 or both, against a kernel that only reads
// and against weights of bfloat16 in the same run: each shape, and four layers without attention. One line of JSON a
// figure.
//
// Weights rotate through more memory than L2 holds.
#include <limits>
#include <random>

#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int64_t kWeightBytes = int64_t{3} << 30;
constexpr int64_t kMetadataBytes = kWeightBytes / 4;
constexpr int64_t kRotatedBytes = int64_t{1} << 30;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  const char* name;
  int64_t n, k;
  bool gated = false;
};
constexpr Shape kQkv = {"qkv", 6144, 4096};
constexpr Shape kOut = {"o", 4096, 4096};
constexpr Shape kGated = {"gate and up", 28672, 4096, true};
constexpr Shape kDown = {"down", 4096, 14336};
constexpr Shape kHead = {"head", 128256, 4096};
constexpr Shape kShapes[] = {kQkv, kOut, kGated, kDown, kHead};
constexpr int64_t kRows[] = {1, 2, 4, 8};
constexpr int64_t kMaxRows = 8;
constexpr int kLayers = 4;

struct Mode {
  const char* name;
  bool int8;
  bool sparse;
  HeddleCudaXQuantization x_quantization = kHeddleCudaKeepX;
  float outlier_threshold = 0;
};
constexpr Mode kModes[] = {{"bfloat16", false, false},
                           {"int8", true, false},
                           {"int8, x as int8", true, false, kHeddleCudaQuantizeX, kInfinity},
                           {"int8, x as int8 with outliers", true, false, kHeddleCudaQuantizeX, 6},
                           {"2:4 bfloat16", false, true},
                           {"2:4 int8", true, true},
                           {"2:4 int8, x as int8", true, true, kHeddleCudaQuantizeX, kInfinity},
                           {"2:4 int8, x as int8 with outliers", true, true, kHeddleCudaQuantizeX, 6}};

int64_t ValueBytes(const Mode& mode, const Shape& shape) {
  return shape.n * shape.k * (mode.int8 ? 1 : 2) / (mode.sparse ? 2 : 1);
}
int64_t MetadataBytes(const Mode& mode, const Shape& shape) { return mode.sparse ? shape.n * shape.k / 8 : 0; }
double Bytes(const Mode& mode, const Shape& shape) {
  return static_cast<double>(ValueBytes(mode, shape) + MetadataBytes(mode, shape) + (mode.int8 ? shape.n * 4 : 0));
}

class Bench {
 public:
  Bench()
      : read_(ReadCeiling(device_)),
        values_(static_cast<char*>(device_.Allocate(kWeightBytes))),
        metadata_(static_cast<uint8_t*>(device_.Allocate(kMetadataBytes))),
        scales_(static_cast<const float*>(device_.Random(1, kHead.n, 2e-4f, kF32).data)),
        x_(device_.Random(kMaxRows, kDown.k).data),
        y_(device_.Allocate(kMaxRows * kHead.n * 4)) {
    // Bytes that are int8, or bfloat16 of some hundredths; nibbles that are two of four.
    std::mt19937 random(1);
    int count = 0;
    Fill(values_, kWeightBytes,
         [&] { return static_cast<uint8_t>(count++ % 2 == 0 ? random() : 0x3c | (random() & 0x81)); });
    Fill(metadata_, kMetadataBytes, [&] {
      constexpr uint8_t kPairs[6] = {0x4, 0x8, 0xc, 0x9, 0xd, 0xe};
      return static_cast<uint8_t>(kPairs[random() % 6] | kPairs[random() % 6] << 4);
    });
  }

  void RunShapes() {
    for (const Shape& shape : kShapes) {
      PutOutliers(shape.k);
      for (const int64_t rows : kRows) {
        double plain = 0;
        for (const Mode& mode : kModes) {
          const Times times = TimesOfProduct(mode, shape, rows);
          if (&mode == kModes) plain = times.median;
          Print({std::string(shape.name) + ", " + mode.name + ", by rows", std::to_string(rows), times,
                 Bytes(mode, shape), read_, Unit::kGigabytes, plain});
        }
      }
    }
  }

  void RunLayers() {
    const HeddleCudaMatrix residual = {device_.Allocate(kMaxRows * kOut.n * 4), kF32, kMaxRows, kOut.n, kOut.n};
    const auto* const norm = static_cast<const float*>(device_.Random(1, kOut.n, 1, kF32).data);
    for (const int64_t rows : kRows) {
      double plain = 0;
      for (const Mode& mode : kModes) {
        double bytes = 0;
        const Times times = device_.Measure([&] { bytes = EnqueueLayers(mode, residual, norm, rows); });
        if (&mode == kModes) plain = times.median;
        Print({std::to_string(kLayers) + " layers without attention, " + mode.name + ", by rows", std::to_string(rows),
               times, bytes, read_, Unit::kGigabytes, plain});
      }
    }
  }

 private:
  // One column in 512 is twenty times as large as others: the same in all rows of x, [kMaxRows, k].
  void PutOutliers(int64_t k) {
    std::mt19937 random(2);
    const HeddleCudaMatrix x = {x_, kBf16, kMaxRows, k, k};
    Check(Api().fill_random(device_.stream(), x, 1, 1));
    const HeddleCudaMatrix column = device_.Random(kMaxRows, 1, 20);
    for (int64_t i = 0; i < k / 512; ++i) {
      char* const to = static_cast<char*>(x_) + random() % k * 2;
      Check(Api().copy_2d(device_.stream(), to, k * 2, column.data, 2, 2, kMaxRows));
    }
  }

  // With what `next` gives for the first of many equal parts.
  template <typename Next>
  void Fill(void* memory, int64_t bytes, const Next& next) {
    std::vector<uint8_t> part(int64_t{16} << 20);
    for (uint8_t& byte : part) byte = next();
    for (int64_t offset = 0; offset < bytes; offset += static_cast<int64_t>(part.size())) {
      Check(Api().copy(device_.stream(), static_cast<char*>(memory) + offset, part.data(),
                       static_cast<int64_t>(part.size())));
    }
    Check(Api().stream_synchronize(device_.stream()));
  }

  // Of the same product again and again, each with its own weights.
  Times TimesOfProduct(const Mode& mode, const Shape& shape, int64_t rows) {
    const int64_t copies = kWeightBytes / ValueBytes(mode, shape);
    const auto repeats = static_cast<int>(std::max<int64_t>(kRotatedBytes / ValueBytes(mode, shape), 2));
    int64_t copy = 0;
    return device_.Measure([&] { Multiply(mode, shape, copy++ % copies * ValueBytes(mode, shape), x_, y_, rows); },
                           repeats);
  }

  // Norms and the products of kLayers layers, whose weights lie one after another. Returns the bytes of these.
  double EnqueueLayers(const Mode& mode, HeddleCudaMatrix residual, const float* norm, int64_t rows) {
    int64_t offset = 0;
    double bytes = 0;
    const auto multiply = [&](const Shape& shape, void* from, void* to) {
      Multiply(mode, shape, offset, from, to, rows);
      offset += ValueBytes(mode, shape);
      bytes += Bytes(mode, shape);
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
    return bytes;
  }

  // With the values that lie at `offset`.
  void Multiply(const Mode& mode, const Shape& shape, int64_t offset, void* x, void* y, int64_t rows) {
    const int64_t size = shape.gated ? shape.n / 2 : shape.n;
    const int64_t stored = mode.sparse ? shape.k / 2 : shape.k;
    const int64_t metadata_offset = offset / (mode.int8 ? 4 : 8) / 16 * 16;
    const HeddleCudaMatrix from = {x, kBf16, rows, shape.k, shape.k};
    const HeddleCudaMatrix to = {y, kBf16, rows, size, size};
    const HeddleCudaWeight weight = {{values_ + offset, mode.int8 ? kHeddleCudaInt8 : kBf16, shape.n, stored, stored},
                                     mode.int8 ? scales_ : nullptr,
                                     mode.sparse ? metadata_ + metadata_offset : nullptr,
                                     mode.sparse ? shape.k / 8 : 0,
                                     mode.x_quantization,
                                     mode.outlier_threshold};
    if (shape.gated) {
      const HeddleCudaGatedMatmul op = {from, weight, nullptr, kHeddleCudaSilu, to};
      Check(Api().gated_matmul(device_.stream(), &op));
    } else {
      const HeddleCudaMatmul op = {from, weight, nullptr, to};
      Check(Api().matmul(device_.stream(), &op));
    }
  }

  Device device_;
  const double read_;  // bytes a second, at most
  char* const values_;
  uint8_t* const metadata_;
  const float* const scales_;
  void* const x_;
  void* const y_;
};

}  // namespace
}  // namespace heddle::bench

int main() {
  heddle::bench::Bench bench;
  bench.RunLayers();
  bench.RunShapes();
  return 0;
}
