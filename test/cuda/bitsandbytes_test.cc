// LLM.int8 products by the library of bitsandbytes, against what heddle_cuda.h promises of them and against ours.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

#include "cuda_testing.h"
#include "packed_weight.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kF16 = kHeddleCudaFloat16;
constexpr HeddleCudaDType kBF16 = kHeddleCudaBFloat16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr const char* kVariable = "HEDDLE_BITSANDBYTES_LIBRARY";

// Skips the test without the library; one that is named and cannot be used is a failure.
void RequireLibrary() {
  Api();
  if (Library().bitsandbytes_check() == kHeddleCudaOk) return;
  const std::string reason = Library().last_error();
  if (std::getenv(kVariable) == nullptr) SKIP(reason);
  throw std::runtime_error(reason);
}

// Columns 3 and 65 and the last but one hold what is large in every row, as in a language model.
std::vector<float> XWithOutliers(HeddleCudaDType dtype, int64_t rows, int64_t k) {
  std::vector<float> x = RandomFloats(rows * k, 5);
  for (int64_t row = 0; row < rows; ++row) {
    for (const int64_t column : {int64_t{3}, int64_t{65}, k - 2}) {
      if (column < k) x[row * k + column] = 20.0f + static_cast<float>(row % 7);
    }
  }
  return Rounded(dtype, x);
}

struct Sizes {
  int64_t n, k;
};

// An int8 weight and x, both with gaps between rows.
class Operands {
 public:
  Operands(TestStream& stream, HeddleCudaDType dtype, Sizes sizes, std::vector<float> x)
      : n_(sizes.n),
        k_(sizes.k),
        dtype_(dtype),
        x_(std::move(x)),
        x_on_device_(DeviceArray::From(stream, dtype, WithGaps(x_, Rows(), k_, PaddedSize(k_, 8, 8), kNaN))) {
    std::mt19937 random(3);
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < n_ * k_; ++i) {
      weight_.push_back(static_cast<float>(static_cast<int>(random() % 255) - 127));
      bytes.push_back(static_cast<uint8_t>(static_cast<int8_t>(weight_.back())));
    }
    for (int64_t i = 0; i < n_; ++i) scales_.push_back(static_cast<float>(random() % 1000 + 1) * 1e-5f);
    const auto values = WithGaps<uint8_t>(bytes, n_, k_, PaddedSize(k_, 16, 16), 77);
    on_device_.push_back(DeviceArray::Bytes(stream, values));
    on_device_.push_back(DeviceArray::From(stream, kF32, scales_));
    bias_ = RandomFloats(n_, 4);
    on_device_.push_back(DeviceArray::From(stream, kF32, bias_));
  }

  int64_t Rows() const { return static_cast<int64_t>(x_.size()) / k_; }
  int64_t n() const { return n_; }
  HeddleCudaDType dtype() const { return dtype_; }
  const std::vector<float>& bias() const { return bias_; }
  const float* Bias() const { return on_device_[2].As<float>(); }
  HeddleCudaMatrix X(int64_t rows) const { return Matrix(x_on_device_, dtype_, rows, k_, PaddedSize(k_, 8, 8)); }
  HeddleCudaWeight Weight(float threshold, HeddleCudaXQuantization how = kHeddleCudaBitsAndBytesX) const {
    return {.values = {on_device_[0].data(), kHeddleCudaInt8, n_, k_, PaddedSize(k_, 16, 16)},
            .scales = on_device_[1].As<float>(),
            .metadata = nullptr,
            .metadata_stride = 0,
            .x_quantization = how,
            .outlier_threshold = threshold};
  }
  std::string Name(int64_t rows) const {
    return std::string(NameOf(dtype_)) + " [" + std::to_string(rows) + ", " + std::to_string(k_) + "] x [" +
           std::to_string(n_) + ", " + std::to_string(k_) + "]^T";
  }

  // Of the first rows of x, which are the op's.
  std::vector<double> Expected(int64_t rows, float threshold) const {
    const std::vector<float> rounded = Rounded(kF16, x_);
    std::vector<bool> is_outlier(k_, false);
    for (int64_t i = 0; i < rows * k_; ++i) {
      if (!(std::fabs(rounded[i]) < threshold)) is_outlier[i % k_] = true;
    }
    std::vector<double> y;
    for (int64_t row = 0; row < rows; ++row) {
      float largest = 0;
      for (int64_t j = 0; j < k_; ++j) {
        const float magnitude = std::fabs(rounded[row * k_ + j]);
        if (magnitude < threshold) largest = std::max(largest, magnitude);
      }
      for (int64_t i = 0; i < n_; ++i) {
        double sum = 0, outliers = 0;
        for (int64_t j = 0; j < k_; ++j) {
          const double value = weight_[i * k_ + j];
          if (is_outlier[j]) {
            outliers += x_[row * k_ + j] * value;
          } else if (largest > 0) {
            sum += std::nearbyint(rounded[row * k_ + j] * (127.0f / largest)) * value;
          }
        }
        y.push_back((sum * largest / 127 + outliers) * scales_[i]);
      }
    }
    return y;
  }

 private:
  int64_t n_, k_;
  HeddleCudaDType dtype_;
  std::vector<float> x_, weight_, scales_, bias_;
  DeviceArray x_on_device_;
  std::vector<DeviceArray> on_device_;  // values, scales, bias
};

std::vector<float> Matmul(TestStream& stream, const Operands& operands, int64_t rows, const HeddleCudaWeight& weight,
                          HeddleCudaDType y_dtype, bool with_bias = false) {
  const int64_t stride = PaddedSize(operands.n(), 8, 8);
  const DeviceArray y = DeviceArray::Poisoned(stream, y_dtype, static_cast<size_t>((rows + 1) * stride));
  const HeddleCudaMatmul op = {.x = operands.X(rows),
                               .weight = weight,
                               .bias = with_bias ? operands.Bias() : nullptr,
                               .y = Matrix(y, y_dtype, rows, operands.n(), stride)};
  MustSucceed(Api().matmul(stream.get(), &op), operands.Name(rows).c_str());
  const std::vector<float> all = y.ToHost();
  if (!GapsAreNaN(all, rows, operands.n(), stride)) Fail(__FILE__, __LINE__, operands.Name(rows) + " wrote into a gap");
  return RowsOf(all, rows, operands.n(), stride);
}

// Of sums that came out as float16. Halves are rounded to either side, as bitsandbytes divides by approximation: they
// are more frequent in bfloat16, whose elements have few digits, and each makes as much of a difference as rounding
// does.
double ToleranceOf(HeddleCudaDType x) { return x == kF16 ? 1e-3 : 3e-3; }

void ExpectClose(const std::vector<float>& actual, const std::vector<double>& expected, double tolerance,
                 const std::string& name) {
  const double error = RelativeError(actual, expected);
  if (!(error <= tolerance)) Fail(__FILE__, __LINE__, name + ": error " + Show(error));
}

void ExpectSaid(const std::string& part) {
  const std::string said = Library().last_error();
  if (said.find(part) == std::string::npos) Fail(__FILE__, __LINE__, "no \"" + part + "\" in \"" + said + "\"");
}

// `call` with the variable that names the library, for as long.
template <typename Call>
void WithVariable(const char* value, const Call& call) {
  const char* const before = std::getenv(kVariable);
  const std::string kept = before == nullptr ? "" : before;
  setenv(kVariable, value, 1);
  call();
  before == nullptr ? unsetenv(kVariable) : setenv(kVariable, kept.c_str(), 1);
}

// First of all: what was opened once stays open.
TEST(CudaBitsAndBytes, "refuses a library that is not there, or lacks a function, by its name") {
  const HeddleCudaApi& library = Library();
  WithVariable("/none/libbitsandbytes_cuda130.so", [&] {
    EXPECT_STATUS(library.bitsandbytes_check(), kHeddleCudaUnavailable);
    ExpectSaid("provider 'bitsandbytes' needs the library of bitsandbytes");
    ExpectSaid("/none/libbitsandbytes_cuda130.so");
  });
  WithVariable("libm.so.6", [&] {
    EXPECT_STATUS(library.bitsandbytes_check(), kHeddleCudaUnavailable);
    ExpectSaid("libm.so.6 has no function get_context");
  });
}

TEST(CudaBitsAndBytes, "is what the contract says for any number of rows, sizes in fours, stride and type") {
  RequireLibrary();
  TestStream stream;
  constexpr Sizes kSizes[] = {{4, 16}, {8, 40}, {1100, 136}, {4104, 160}, {64, 4104}, {1100, 1028}, {5004, 132}};
  for (const HeddleCudaDType dtype : {kF16, kBF16}) {
    for (const Sizes sizes : kSizes) {
      const int64_t most = sizes.n * sizes.k > 200000 ? 70 : 300;
      const Operands operands(stream, dtype, sizes, XWithOutliers(dtype, most, sizes.k));
      for (const int64_t rows : {1, 2, 8, 9, 33, 70, 300}) {
        if (rows > most) continue;
        // The planted outliers; many columns, in the end all; none.
        for (const float threshold : {6.0f, 2.5f, kInfinity}) {
          const std::vector<double> expected = operands.Expected(rows, threshold);
          const HeddleCudaWeight weight = operands.Weight(threshold);
          ExpectClose(Matmul(stream, operands, rows, weight, kF32), expected, ToleranceOf(dtype), operands.Name(rows));
          ExpectClose(Matmul(stream, operands, rows, weight, dtype), expected, Tolerance(dtype), operands.Name(rows));
        }
      }
    }
  }
}

TEST(CudaBitsAndBytes, "differs from ours by its roundings where both have the same outliers") {
  RequireLibrary();
  TestStream stream;
  for (const HeddleCudaDType dtype : {kF16, kBF16}) {
    for (const Sizes sizes : {Sizes{1536, 1024}, Sizes{1024, 3584}}) {
      const Operands operands(stream, dtype, sizes, XWithOutliers(dtype, 300, sizes.k));
      for (const int64_t rows : {1, 8, 32, 300}) {
        const std::vector<float> ours = Matmul(stream, operands, rows, operands.Weight(6, kHeddleCudaQuantizeX), kF32);
        const std::vector<float> theirs = Matmul(stream, operands, rows, operands.Weight(6), kF32);
        ExpectClose(theirs, {ours.begin(), ours.end()}, ToleranceOf(dtype), operands.Name(rows));
      }
    }
  }
}

TEST(CudaBitsAndBytes, "leaves to ours, to the bit, sizes that it does not take") {
  RequireLibrary();
  TestStream stream;
  for (const Sizes sizes : {Sizes{63, 160}, Sizes{64, 158}, Sizes{7, 9}}) {
    const Operands operands(stream, kBF16, sizes, XWithOutliers(kBF16, 40, sizes.k));
    for (const int64_t rows : {3, 40}) {
      EXPECT_TRUE(SameBits(Matmul(stream, operands, rows, operands.Weight(6), kF32),
                           Matmul(stream, operands, rows, operands.Weight(6, kHeddleCudaQuantizeX), kF32)));
    }
  }
}

TEST(CudaBitsAndBytes, "adds a bias, and gates its sums") {
  RequireLibrary();
  TestStream stream;
  for (const HeddleCudaDType dtype : {kF16, kBF16}) {
    const Operands operands(stream, dtype, {320, 520}, XWithOutliers(dtype, 40, 520));
    for (const int64_t rows : {1, 40}) {
      std::vector<double> sums = operands.Expected(rows, 6);
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += operands.bias()[i % 320];
      ExpectClose(Matmul(stream, operands, rows, operands.Weight(6), kF32, true), sums, ToleranceOf(dtype),
                  operands.Name(rows));

      std::vector<double> expected;
      for (int64_t i = 0; i < rows * 160; ++i) {
        const double gate = sums[i / 160 * 320 + i % 160];
        expected.push_back(gate / (1 + std::exp(-gate)) * sums[i / 160 * 320 + 160 + i % 160]);
      }
      const DeviceArray y = DeviceArray::Poisoned(stream, dtype, static_cast<size_t>(rows * 160));
      const HeddleCudaGatedMatmul op = {.x = operands.X(rows),
                                        .gate_up = operands.Weight(6),
                                        .bias = operands.Bias(),
                                        .activation = kHeddleCudaSilu,
                                        .y = Matrix(y, dtype, rows, 160)};
      EXPECT_OK(Api().gated_matmul(stream.get(), &op));
      ExpectClose(y.ToHost(), expected, 2 * Tolerance(dtype), operands.Name(rows) + " gated");
    }
  }
}

TEST(CudaBitsAndBytes, "gives the same bits over and over, in a graph too, and in parts of a small workspace") {
  RequireLibrary();
  TestStream stream;
  TestStream narrow(int64_t{1} << 20);
  const Operands operands(stream, kBF16, {1160, 2072}, XWithOutliers(kBF16, 300, 2072));
  const Operands of_narrow(narrow, kBF16, {1160, 2072}, XWithOutliers(kBF16, 300, 2072));
  for (const int64_t rows : {1, 9, 300}) {
    const std::vector<float> first = Matmul(stream, operands, rows, operands.Weight(6), kF32);
    EXPECT_TRUE(SameBits(Matmul(narrow, of_narrow, rows, of_narrow.Weight(6), kF32), first));
    std::vector<DeviceArray> ys;
    HeddleCudaGraph* graph = nullptr;
    for (int i = 0; i < 4; ++i) ys.push_back(DeviceArray::Poisoned(stream, kF32, static_cast<size_t>(rows * 1160)));
    EXPECT_OK(Api().capture_begin(stream.get()));
    for (const DeviceArray& y : ys) {
      const HeddleCudaMatmul op = {
          .x = operands.X(rows), .weight = operands.Weight(6), .bias = nullptr, .y = Matrix(y, kF32, rows, 1160)};
      EXPECT_OK(Api().matmul(stream.get(), &op));
    }
    EXPECT_OK(Api().capture_end(stream.get(), &graph));
    for (int i = 0; i < 20; ++i) EXPECT_OK(Api().graph_launch(stream.get(), graph));
    for (const DeviceArray& y : ys) EXPECT_TRUE(SameBits(y.ToHost(), first));
    EXPECT_OK(Api().graph_destroy(graph));
  }
}

TEST(CudaBitsAndBytes, "keeps NaN and infinity in the rows that have them, and zeros zero") {
  RequireLibrary();
  TestStream stream;
  for (const float threshold : {6.0f, kInfinity}) {
    std::vector<float> x = Rounded(kF16, RandomFloats(12 * 272, 5));
    std::fill_n(x.begin() + 7 * 272, 272, 0.0f);
    x[3 * 272 + 5] = kNaN;
    x[5 * 272 + 271] = -kInfinity;
    const Operands operands(stream, kF16, {136, 272}, x);
    const std::vector<float> y = Matmul(stream, operands, 12, operands.Weight(threshold), kF32);
    for (int64_t i = 0; i < 12 * 136; ++i) {
      const bool spoiled = i / 136 == 3 || i / 136 == 5;
      EXPECT_EQ(std::isfinite(y[i]), !spoiled);
      if (i / 136 == 7) EXPECT_EQ(y[i], 0.0f);
    }
  }
}

TEST(CudaBitsAndBytes, "multiplies what float16 does not hold as it is") {
  RequireLibrary();
  TestStream stream;
  std::vector<float> x = Rounded(kBF16, RandomFloats(4 * 272, 5));
  x[2 * 272 + 9] = 131072.0f;
  const Operands operands(stream, kBF16, {136, 272}, x);
  for (const float threshold : {6.0f, kInfinity}) {
    ExpectClose(Matmul(stream, operands, 4, operands.Weight(threshold), kF32), operands.Expected(4, threshold),
                ToleranceOf(kBF16), operands.Name(4));
  }
}

TEST(CudaBitsAndBytes, "refuses 2:4 weights, and float weights") {
  TestStream stream;
  const PackedWeight sparse(
      stream, kF16, {.int8 = true, .sparse = true, .x_quantization = kHeddleCudaBitsAndBytesX, .outlier_threshold = 6},
      64, 64);
  const DeviceArray x = DeviceArray::From(stream, kF16, RandomFloats(64, 1));
  const DeviceArray y = DeviceArray::Poisoned(stream, kF16, 64);
  HeddleCudaMatmul op = {
      .x = Matrix(x, kF16, 1, 64), .weight = sparse.Get(), .bias = nullptr, .y = Matrix(y, kF16, 1, 64)};
  EXPECT_STATUS(Api().matmul(stream.get(), &op), kHeddleCudaInvalid);
  const DeviceArray floats = DeviceArray::From(stream, kF16, RandomFloats(64 * 64, 1));
  op.weight = DenseWeight(Matrix(floats, kF16, 64, 64));
  op.weight.x_quantization = kHeddleCudaBitsAndBytesX;
  EXPECT_STATUS(Api().matmul(stream.get(), &op), kHeddleCudaInvalid);
}

}  // namespace
}  // namespace heddle::test
